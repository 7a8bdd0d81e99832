"""``-n2``: all cells of a pipeline go to one process, ordinary tests wherever xdist sends them."""

from __future__ import annotations

import pytest

from qregress.items.xdist_scheduler import cell_in
from tests.making import CONFIG
from tests.plugin.project import ALPHA, Project

_BETA = ALPHA.replace("alpha", "beta")
_ORDINARY = """
import os, pathlib, time, pytest

@pytest.mark.parametrize("n", range(40))
def test_ordinary(n):
    time.sleep(0.05)  # longer than a busy machine keeps one process waiting
    with pathlib.Path(__file__).with_name("ordinary.txt").open("a") as stream:
        stream.write(f"{os.getpid()}\\n")
"""
_CELLS = {"pixart/int8/bs1": "pixart", "pixart/int8/bs1-2": "pixart", "a-pixart/int8/bs1": "a-pixart"}


@pytest.fixture
def three(project: Project) -> Project:
    """Three pipelines with three cells each, and a second test for each cell."""
    (project.path / "qregress.toml").write_text(ALPHA + _BETA + CONFIG)
    project.pytester.makepyfile(test_second="def test_second(qregress_cell):\n    qregress_cell.check()")
    return project


@pytest.mark.parametrize("options", [("-n2",), ("-n3",), ("-n2", "--maxschedchunk=1"), ("-n2", "--dist=load")], ids=str)
def test_a_pipeline_has_one_process(options: tuple[str, ...], three: Project) -> None:
    """Given more pipelines than processes or as many, then no pipeline is loaded twice, and all work is shared."""
    three.run_apart(*options).assert_outcomes(passed=18)
    assert [len(found) for found in three.processes().values()] == [1, 1, 1]
    assert len(set.union(*three.processes().values())) > 1
    assert len(three.produced()) == 9


def test_ordinary_tests_are_spread(three: Project) -> None:
    """Given ordinary tests beside cells, then two processes share them."""
    three.pytester.makepyfile(test_ordinary=_ORDINARY)
    three.run_apart("-n2").assert_outcomes(passed=58)
    assert [len(found) for found in three.processes().values()] == [1, 1, 1]
    assert len(set((three.path / "ordinary.txt").read_text().split())) == 2


def test_the_embedded_matrix(project: Project) -> None:
    """Given no configuration, then its cells go to one process as well: their ids are known all the same."""
    (project.path / "qregress.toml").unlink()
    project.run_apart("-n2")
    assert len(project.produced()) == 4  # the selection "quick"
    assert [len(found) for found in project.processes().values()] == [1]


@pytest.mark.parametrize("how", ["each", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_another_distribution(how: str, project: Project) -> None:
    """Given an explicit ``--dist``, then xdist's own scheduler is used, and every cell is still produced once."""
    result = project.run_apart("-n2", f"--dist={how}", "-v")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*PipelineScheduling*")
    assert len(project.produced()) == 3


@pytest.mark.parametrize(
    ("node_id", "pipeline"),
    [
        ("t.py::test_quantized[pixart/int8/bs1]", "pixart"),
        ("t.py::test_quantized[1-pixart/int8/bs1]", "pixart"),
        ("t.py::test_quantized[pixart/int8/bs1-1]", "pixart"),
        ("t.py::test_quantized[a-pixart/int8/bs1]", "a-pixart"),
        ("t.py::test_quantized[flux/int8/bs1]", None),
    ],
)
def test_cell_in_a_node_id(node_id: str, pipeline: str | None) -> None:
    """Given the id of a test, alone or with other parameters, then its pipeline is found; no other test has one."""
    assert cell_in(node_id, lambda: _CELLS) == pipeline


def test_most_node_ids_cost_nothing() -> None:
    """Given tests that cannot be cells, then nobody asks for the matrix."""
    for node_id in ("a/b/c/t.py::test_one", "a/b/t.py::test_one[1-x]", "t.py::test_path[a/b]"):
        assert cell_in(node_id, pytest.fail) is None

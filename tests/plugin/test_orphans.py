"""Baselines that no cell asks for: a full run fails and names them, a part of one does not."""

from __future__ import annotations

import pytest

from qregress import cli
from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin import fake_producer
from tests.plugin.project import WAYS, Project

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
ORPHAN = f"baselines/cpu-test/{INT8_TE}: no cell of qregress.toml asks for this baseline"
_SETTING = '[settings."int8+te"]\nweights = { transformer = "int8", text_encoder = "int8" }\n'
_CUDA_ONLY = '[pipelines.full-size]\nsource = "path:pipeline"\ndevices = ["cuda"]\n'


@pytest.fixture
def orphaned(known: Project) -> Project:
    """Three baselines and two cells: nothing asks for that of int8+te."""
    known.configure((_SETTING, ""))
    return known


@WAYS
def test_full_run(way: str, orphaned: Project) -> None:
    """Given every cell run and green, then the run fails, names the orphan, and says what removes it."""
    result = orphaned.run_as(way)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["2 pass", ORPHAN, "1 orphaned baselines; remove them with: qregress orphans --prune"])
    assert orphaned.results().complete


@WAYS
def test_prune(way: str, orphaned: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Given an orphan, then pruning removes it and nothing else, and the next full run is green."""
    before = orphaned.stored()
    assert cli.main(["orphans"]) == FAILED
    assert orphaned.stored() == before
    assert cli.main(["orphans", "--prune"]) == OK
    assert f"removed baselines/cpu-test/{INT8_TE}" in capsys.readouterr().out
    assert orphaned.stored() == {name: data for name, data in before.items() if INT8_TE not in name}
    assert orphaned.run_as(way, "--qregress-require").ret == OK


@pytest.mark.parametrize(
    "options",
    [
        ("-k", "int8"),
        (f"test_matrix.py::test_quantized[{INT8}]",),
        (f"--deselect=test_matrix.py::test_quantized[{INT8}]",),
    ],
)
@pytest.mark.parametrize("way", ["", "-n2"])
def test_a_part(way: str, options: tuple[str, ...], orphaned: Project) -> None:
    """Given a choice of cells, then what else is asked for is not known: no orphan is told, the run is green."""
    result = orphaned.run_as(way, *options)
    assert result.ret == OK
    result.stdout.no_fnmatch_line("*no cell of*")


def test_last_failed(orphaned: Project) -> None:
    """Given ``--lf``, then only what failed is run, which is no full run."""
    orphaned.behave({INT8: {"lpips": 0.2}})
    orphaned.run().assert_outcomes(passed=1, failed=1)
    orphaned.behave({})
    result = orphaned.run("--lf")
    assert result.ret == OK
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*no cell of*")


@WAYS
def test_exit_first(way: str, orphaned: Project) -> None:
    """Given ``-x`` that stopped the run, then no orphan is told; what failed is."""
    orphaned.behave({REFERENCE: {"do": "crash"}})
    result = orphaned.run_as(way, "-x")
    assert result.ret in (FAILED, pytest.ExitCode.INTERRUPTED)
    if not orphaned.results().complete:  # in two processes both cells may have been under way
        result.stdout.no_fnmatch_line("*no cell of*")
    else:
        assert way == "-n2"


def test_interrupted(orphaned: Project) -> None:
    """Given Ctrl-C, then no orphan is told."""
    orphaned.behave({INT8: {"do": "interrupt"}})
    result = orphaned.run_apart()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.no_fnmatch_line("*no cell of*")


@WAYS
def test_other_devices(way: str, orphaned: Project) -> None:
    """Given cells of a device that is not here, then they are asked for: the run is full, and theirs are no orphans."""
    (orphaned.path / "qregress.toml").open("a").write(_CUDA_ONLY)
    result = orphaned.run_as(way)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["* cells NOT run: pipeline 'full-size' lists cuda *", ORPHAN])


def test_baselines_of_other_devices(known: Project) -> None:
    """Given baselines of cells that only another device runs, then a full run here is green."""
    known.configure(('"cpu", "cuda"', '"cuda"'))
    text = (known.path / "qregress.toml").read_text()
    here = '[pipelines.small]\nsource = "path:pipeline"\ndevices = ["cpu"]\n'
    (known.path / "qregress.toml").write_text(here + text)
    result = known.run()
    assert result.ret == OK
    result.stdout.no_fnmatch_line("*no cell of*")


def test_beside_failures(orphaned: Project) -> None:
    """Given a cell that fails, then the orphan is named beside it; the exit code is that of a failure."""
    orphaned.behave({INT8: {"lpips": 0.2}})
    result = orphaned.run()
    assert result.ret == FAILED
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([ORPHAN])


def test_a_refresh_leaves_orphans(orphaned: Project) -> None:
    """Given a refresh of all, then an orphan is neither refreshed nor removed, and still told."""
    before = {name: data for name, data in orphaned.stored().items() if INT8_TE in name}
    result = orphaned.run("--qregress-refresh=all", "--qregress-reason=x")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["accepted 2 same in *", ORPHAN])
    assert {name: data for name, data in orphaned.stored().items() if INT8_TE in name} == before


def test_collect_only(orphaned: Project) -> None:
    """Given ``--co``, then nothing runs and nothing is told."""
    result = orphaned.run("--co")
    assert result.ret == OK
    result.stdout.no_fnmatch_line("*no cell of*")


def test_without_baselines(orphaned: Project) -> None:
    """Given that this configuration has none, then what lies there is no concern of it."""
    (orphaned.path / "qregress.toml").open("a").write('[baselines]\nstore = "none"\n')
    assert orphaned.run().ret == OK


def test_the_command(orphaned: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ``qregress run``, then it fails and names the orphan as pytest does."""
    monkeypatch.setattr("qregress.items.session.Worker", fake_producer.FakeProducer)
    monkeypatch.setattr(fake_producer, "HERE", orphaned.path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "")
    assert cli.main(["run"]) == FAILED
    assert f"2 pass\nresults: {orphaned.path}/.qregress/latest/run.json\n{ORPHAN}\n" in capfd.readouterr().out

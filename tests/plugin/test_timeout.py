"""pytest-timeout: a cell that hangs is ended with its worker process, and the next one gets a new worker.

The worker is real, and so is the pipe at which the session waits; only ``Bench`` in it is a stand-in.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

#: Python runs it as it starts, in pytest and in workers alike.
_SITE = """
import importlib.abc, importlib.util, pathlib, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "qregress.produce.bench":
            return importlib.util.spec_from_file_location(name, pathlib.Path(__file__).with_name("fake_bench.py"))

sys.meta_path.insert(0, Finder())
"""
_BENCH = """
from pathlib import Path
import fake_producer

class Bench:
    def __init__(self, pipeline, options, emit):
        self._fake, self._emit = fake_producer.FakeProducer(options, Path("no.log"), 0), emit

    def run(self, cell, resolve):
        self._fake.produce(cell, resolve, self._emit)
"""
#: Two seconds for the cell that hangs, in a worker that has run one already; as long as it takes for the others.
_CONFTEST = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.endswith("/int8/bs1]"):
            item.add_marker(pytest.mark.timeout(2))
"""


@pytest.fixture
def hanging(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The second of three cells hangs in its worker process."""
    (project.path / "sitecustomize.py").write_text(_SITE)
    (project.path / "fake_bench.py").write_text(_BENCH)
    (project.path / "conftest.py").write_text(_CONFTEST)
    monkeypatch.setenv("PYTHONPATH", str(project.path), prepend=os.pathsep)
    project.behave({INT8: {"do": "hang"}})
    return project


def workers(project: Project) -> list[tuple[int, str]]:
    """The process in which each cell was begun."""
    lines = (project.path / "processes.txt").read_text().splitlines()
    return [(int(process), cell) for process, cell in (line.split() for line in lines)]


def wait_for_the_end(process: int) -> None:
    """Wait until a process has ended; fails if it does not."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(process)
        assert select.select([handle], [], [], 20)[0], "the worker outlives its session"
        os.close(handle)


def test_signal(hanging: Project, spread: tuple[str, ...]) -> None:
    """Given a hang and a timeout by signal, then its test fails, its worker ends and the third cell has a new one."""
    result = hanging.run_apart("--timeout-method=signal", *spread)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*Timeout (>2.0s) from pytest-timeout.*", "1 cells NOT run: interrupted before it had *"]
    )
    (first, one), (second, two), (third, three) = workers(hanging)
    assert (one, two, three) == (REFERENCE, INT8, INT8_TE)
    assert first == second != third
    wait_for_the_end(second)
    run = hanging.results()
    assert ([cell.id for cell in run.cells], run.complete) == ([REFERENCE, INT8_TE], False)
    assert run.not_run == {INT8: "interrupted before it had a verdict"}


def test_thread(hanging: Project, spread: tuple[str, ...]) -> None:
    """Given a timeout by thread, which ends pytest or xdist's process, then workers end too, and results are valid."""
    result = hanging.run_apart("--timeout-method=thread", *spread)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    begun = workers(hanging)
    for process, _ in begun:
        wait_for_the_end(process)
    run = hanging.results()
    assert not run.complete
    if spread == ("-n2",):  # another process of xdist goes on
        assert [cell.id for cell in run.cells] == [REFERENCE, INT8_TE]
        assert run.not_run == {INT8: "interrupted before it had a verdict"}
        assert begun[1][0] != begun[2][0]
    else:
        assert [cell.id for cell in run.cells] == [REFERENCE]


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_a_hang_is_not_tried_again(method: str, hanging: Project) -> None:
    """Given a hang, when rerunfailures tries its test again, also in another process, then it is not produced again."""
    result = hanging.run_apart(f"--timeout-method={method}", "--reruns=2", "-n1")
    result.stdout.fnmatch_lines([f"{INT8}: interrupted before it had a verdict, and not tried again in the same run"])
    assert sorted(cell for _, cell in workers(hanging)) == sorted([REFERENCE, INT8, INT8_TE])

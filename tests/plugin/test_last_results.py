"""Results of the last run are there until a cell of the next one starts."""

from __future__ import annotations

import pytest

from tests.making import REFERENCE
from tests.plugin.project import Project

_INTERRUPTED = "raise KeyboardInterrupt"
_EXITS = "import pytest\ndef test_one():\n    pytest.exit('enough')"


@pytest.fixture
def finished(project: Project) -> tuple[Project, bytes]:
    """A run of one cell, and its ``run.json``."""
    project.run("-k", "reference").assert_outcomes(passed=1, deselected=2)
    return project, (project.path / ".qregress" / "latest" / "run.json").read_bytes()


@pytest.mark.parametrize(
    ("file", "options", "code"),
    [
        (_INTERRUPTED, (), pytest.ExitCode.INTERRUPTED),
        (_EXITS, (), pytest.ExitCode.INTERRUPTED),
        ("", ("--qregress-device=tpu",), pytest.ExitCode.USAGE_ERROR),
        ("", ("-k", "nothing"), pytest.ExitCode.NO_TESTS_COLLECTED),
    ],
    ids=["Ctrl-C while collecting", "exit before", "usage error", "nothing chosen"],
)
def test_kept(
    file: str,
    options: tuple[str, ...],
    code: pytest.ExitCode,
    finished: tuple[Project, bytes],
    spread: tuple[str, ...],
) -> None:
    """Given a run that ends before its first cell, then the last results are as they were, and none are claimed."""
    project, before = finished
    project.pytester.makepyfile(test_a=file)
    spread = spread if (file, spread) != (_EXITS, ("-n2",)) else ("-n1",)  # a second process may have got to a cell
    result = project.run_apart(*options, *spread)
    if spread and spread != ("-n0",) and code == pytest.ExitCode.INTERRUPTED:
        assert result.ret != pytest.ExitCode.OK  # xdist has exit codes of its own for what ends its processes
    else:
        assert result.ret == code
    result.stdout.no_fnmatch_line("results: *")
    assert (project.path / ".qregress" / "latest" / "run.json").read_bytes() == before
    assert (project.path / ".qregress" / "latest" / "cells" / REFERENCE / "result.json").exists()


@pytest.mark.parametrize("spread", [(), ("-n0",)], ids=["plain", "n0"])
def test_collection_error(finished: tuple[Project, bytes], spread: tuple[str, ...]) -> None:
    """Given a file that cannot be collected, then the results are kept, and what was not run is counted.

    Not with two processes: xdist runs what could be collected, as if told to continue on collection errors.
    """
    project, before = finished
    project.pytester.makepyfile(test_a="import nothing_of_that_name")
    result = project.run_apart(*spread)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["3 cells NOT run: the run ended before it"])
    assert (project.path / ".qregress" / "latest" / "run.json").read_bytes() == before


def test_replaced_by_the_first_cell(finished: tuple[Project, bytes], spread: tuple[str, ...]) -> None:
    """Given a run whose first cell is interrupted, then nothing of the last run is left to be taken for it."""
    project, before = finished
    project.behave({"pixart/int8/bs1": {"do": "interrupt"}})
    project.run_apart("-k", "int8", *spread)
    run = project.results()
    assert (project.path / ".qregress" / "latest" / "run.json").read_bytes() != before
    assert (run.cells, run.complete) == ((), False)
    assert not (project.path / ".qregress" / "latest" / "cells" / REFERENCE / "result.json").exists()

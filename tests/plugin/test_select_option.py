"""``--qregress-select`` and ``[run] select``: a named part of the matrix."""

from __future__ import annotations

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

SELECTIONS = """[selections]
fast = ["pixart/reference", "pixart/int8"]
[run]
select = "fast"
"""


@pytest.fixture
def selecting(project: Project) -> Project:
    """A configuration that runs two of its three cells where nothing else is asked for."""
    project.configure(("[baselines]", f"{SELECTIONS}[baselines]"))
    return project


def test_the_configurations_own_choice(selecting: Project, spread: tuple[str, ...]) -> None:
    """Given a selection in the configuration, then its cells run, the run is complete, and what is left out is said."""
    result = selecting.run_apart("--qregress-require", *spread)
    assert result.ret == pytest.ExitCode.OK
    assert selecting.produced() == [REFERENCE, INT8]
    run = selecting.results()
    assert (run.selection, run.not_run, run.complete) == ("fast", {}, True)
    told = "1 more cell is not in the selection 'fast': qregress run --all, or --qregress-select=all*"
    result.stdout.fnmatch_lines([told])


def test_all(selecting: Project, spread: tuple[str, ...]) -> None:
    """Given the word for everything, then all cells run and nothing is left out."""
    result = selecting.run_apart("--qregress-select=all", *spread)
    assert result.ret == pytest.ExitCode.OK
    assert selecting.produced() == [REFERENCE, INT8, INT8_TE]
    result.stdout.no_fnmatch_line("*not in the selection*")


def test_a_selection_and_an_expression(selecting: Project, spread: tuple[str, ...]) -> None:
    """Given ``-k`` as well, then both must choose a cell."""
    assert selecting.run_apart("-k", "int8", *spread).ret == pytest.ExitCode.OK
    assert selecting.produced() == [INT8]


def test_an_expression_for_what_is_outside(selecting: Project, spread: tuple[str, ...]) -> None:
    """Given ``-k`` for cells outside of the selection alone, then nothing is collected, and why is said."""
    result = selecting.run_apart("-k", "int8+te", *spread)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    if spread != ("-n2",):  # only the processes of xdist have seen tests
        result.stdout.fnmatch_lines(["1 more cell is not in the selection 'fast': *"])


def test_orphans_of_a_selection(selecting: Project, spread: tuple[str, ...]) -> None:
    """Given a baseline that no cell of the configuration asks for, when all of the selection has run, then it fails."""
    selecting.configure(('store = "none"', 'store = "images"'))
    selecting.configure(("[settings.int8]", "[settings.int9]"), ('"pixart/int8"]', '"pixart/int9"]'))
    selecting.run("--qregress-refresh=missing").assert_outcomes(passed=2)
    selecting.configure(("[settings.int9]", "[settings.int8]"), ('"pixart/int9"]', '"pixart/int8"]'))
    result = selecting.run_apart(*spread)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "pixart/int9/bs1" in result.stdout.str()


def test_an_unknown_selection(selecting: Project, spread: tuple[str, ...]) -> None:
    """Given a name that the configuration does not have, then one line, exit code 4, and nothing runs."""
    result = selecting.run_apart("--qregress-select=fest", *spread)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no selection 'fest'; did you mean 'fast'?" in result.stderr.str()
    assert not (selecting.path / ".qregress").exists()

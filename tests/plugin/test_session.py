"""Ctrl-C, and cells that are asked for more than once."""

from __future__ import annotations

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

_AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for _ in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_interrupt(project: Project) -> None:
    """Given Ctrl-C in the second cell, then the run is interrupted and what it leaves is valid and marked."""
    project.behave({INT8: {"do": "interrupt"}})
    result = project.run_apart()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    run = project.results()
    assert [cell.id for cell in run.cells] == [REFERENCE]
    assert (run.complete, run.finished) == (False, None)
    assert sorted(run.not_run) == [INT8_TE, INT8]


def test_interrupt_in_the_first_cell(project: Project) -> None:
    """Given Ctrl-C before anything was judged, then there is a valid ``run.json`` without cells."""
    project.behave({REFERENCE: {"do": "interrupt"}})
    assert project.pytester.inline_run("-p", "no:xdist", no_reraise_ctrlc=True).ret == pytest.ExitCode.INTERRUPTED
    run = project.results()
    assert (run.complete, run.cells, len(run.not_run)) == (False, (), 3)


def test_a_rerun_does_not_judge_again(project: Project) -> None:
    """Given a plugin that runs a failed test again, when the second try would pass, then the first verdict stays."""
    project.pytester.makeconftest((project.path / "conftest.py").read_text() + _AGAIN)
    project.behave({INT8: {"lpips": 0.2}})
    project.run().assert_outcomes(passed=2, failed=1)
    assert project.produced() == [REFERENCE, INT8, INT8_TE]


def test_two_tests_of_the_same_cells(project: Project) -> None:
    """Given two tests that take cells, then each cell is produced once and judged once."""
    project.pytester.makepyfile(test_second="def test_again(qregress_cell):\n    assert qregress_cell.check().checks")
    project.run().assert_outcomes(passed=6)
    assert sorted(project.produced()) == sorted([REFERENCE, INT8, INT8_TE])
    assert len(project.results().cells) == 3


def test_the_next_run_judges_anew(project: Project) -> None:
    """Given results of an earlier run, when pytest runs again, then nothing of them is taken for its own."""
    project.run("-k", "int8+te")
    project.behave({INT8: {"lpips": 0.2}})
    project.run("-k", "int8 and not int8+te").assert_outcomes(failed=1, deselected=2)
    assert [cell.id for cell in project.results().cells] == [INT8]


def test_a_test_that_never_checks(project: Project) -> None:
    """Given a test that takes a cell and does not check it, then the cell counts as not run, and nothing is written."""
    project.pytester.makepyfile(test_matrix="def test_nothing(qregress_cell):\n    assert qregress_cell.id")
    result = project.run()
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["3 cells NOT run: *", "3 not-run"])
    assert not (project.path / ".qregress").exists()
    assert project.run("--qregress-require").ret == pytest.ExitCode.TESTS_FAILED

"""``--pdb`` with ``--qregress-inprocess``: a failing cell stops in the debugger, where what it was can be seen."""

from __future__ import annotations

import sys

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

_IN_PROCESS = """
from pathlib import Path
import qregress.session

qregress.session.InProcess = lambda options: fake_producer.FakeProducer(options, Path("no.log"), 0)
"""


def debug(project: Project, commands: str, spread: tuple[str, ...]) -> pytest.RunResult:
    """Run pytest with commands for the debugger on its standard input."""
    project.add_conftest(_IN_PROCESS)
    options = ("--pdb", "--qregress-inprocess", *spread)
    return project.pytester.run(sys.executable, "-m", "pytest", *options, stdin=commands.encode())


WITHOUT = pytest.mark.parametrize("spread", [(), ("-n0",)], ids=["plain", "n0"])


@WITHOUT
def test_a_failed_cell(project: Project, spread: tuple[str, ...]) -> None:
    """Given a cell over its budget, then the debugger has the test and its numbers, and on ``c`` the next cell runs."""
    project.behave({INT8: {"lpips": 0.2}})
    result = debug(project, "p 'cell', qregress_cell.id\ndown\np 'LPIPS', result.scores['lpips']\nc\n", spread)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*entering PDB*", f"*('cell', '{INT8}')*", "*('LPIPS', 0.2)*"])
    assert project.produced() == [REFERENCE, INT8, INT8_TE]
    assert project.results().complete


@WITHOUT
def test_a_bug(project: Project, spread: tuple[str, ...]) -> None:
    """Given an error in a library, then the debugger stops where it was raised, and ``q`` ends a valid run."""
    project.behave({INT8: {"do": "raise"}})
    result = debug(project, "p 'in', log\nq\n", spread)
    result.stdout.fnmatch_lines(["*entering PDB*", "*('in', 'no.log')*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED
    run = project.results()
    assert ([cell.id for cell in run.cells], run.complete) == ([REFERENCE], False)
    assert set(run.not_run) == {INT8, INT8_TE}


def test_two_processes(project: Project) -> None:
    """Given ``-n2``, then xdist itself refuses, and results of the last run are kept."""
    project.run_apart("-k", "reference")
    result = debug(project, "q\n", ("-n2",))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --pdb is incompatible with distributing tests*"])
    assert len(project.results().cells) == 1

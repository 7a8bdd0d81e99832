"""``-x``: the first failure ends the run, and what it did not reach is said."""

from __future__ import annotations

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project


def test_exit_first(project: Project, spread: tuple[str, ...]) -> None:
    """Given ``-x``, when a cell fails, then the next is not run, and table and ``run.json`` say so."""
    project.behave({INT8: {"lpips": 0.2}})
    result = project.run_apart("-x", *spread)
    result.assert_outcomes(passed=1, failed=1)
    assert project.produced() == [REFERENCE, INT8]
    result.stdout.fnmatch_lines(["1 cells NOT run: the run ended before it"])
    run = project.results()
    assert (run.complete, run.not_run) == (False, {INT8_TE: "the run ended before it"})
    assert [cell.id for cell in run.cells] == [REFERENCE, INT8]


def test_an_ordinary_failure_first(project: Project, spread: tuple[str, ...]) -> None:
    """Given ``-x`` and a test that fails before any cell, then the cells are counted and the last results kept."""
    project.run("-k", "reference")
    before = (project.path / ".qregress" / "latest" / "run.json").read_bytes()
    project.pytester.makepyfile(test_a="def test_one():\n    assert False")
    options = spread if spread != ("-n2",) else ("-n1",)  # with two, the other may have started a cell by then
    result = project.run_apart("-x", *options)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["3 cells NOT run: the run ended before it"])
    result.stdout.no_fnmatch_line("results: *")
    assert (project.path / ".qregress" / "latest" / "run.json").read_bytes() == before

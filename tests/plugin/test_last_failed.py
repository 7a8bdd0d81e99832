"""``--lf`` and ``--ff``, from pytest's own cache."""

from __future__ import annotations

import pytest

from tests.making import CONFIG, INT8, INT8_TE, REFERENCE
from tests.plugin.project import ALPHA, Project


@pytest.fixture
def failed(project: Project, spread: tuple[str, ...]) -> Project:
    """A run in which one cell failed."""
    project.behave({INT8: {"lpips": 0.2}})
    project.run_apart(*spread).assert_outcomes(passed=2, failed=1)
    project.behave({})
    (project.path / "produced.txt").unlink()
    return project


def test_last_failed(failed: Project, spread: tuple[str, ...]) -> None:
    """Given ``--lf``, then only the failed cell runs, it alone is announced, and no other is missed."""
    result = failed.run_apart("--lf", *spread)
    result.assert_outcomes(passed=1)
    assert failed.produced() == [INT8]
    if spread != ("-n2",):  # its processes have no screen
        result.stdout.fnmatch_lines(["qregress: *qregress.toml: 1 cells on cpu"])
    run = failed.results()
    assert ([cell.id for cell in run.cells], run.not_run, run.complete) == ([INT8], {}, True)


def test_failed_first(failed: Project, spread: tuple[str, ...]) -> None:
    """Given ``--ff``, then the failed cell runs before the others."""
    failed.run_apart("--ff", *spread).assert_outcomes(passed=3)
    assert failed.produced() == [INT8, REFERENCE, INT8_TE]


def test_failed_first_of_two_pipelines(project: Project) -> None:
    """Given a failure in each of two pipelines, when ``--ff`` brings both to the front, then pipelines stay whole."""
    (project.path / "qregress.toml").write_text(ALPHA + CONFIG)
    project.behave({INT8: {"lpips": 0.2}, "alpha/int8/bs1": {"lpips": 0.2}})
    project.run_apart("-p", "no:xdist").assert_outcomes(passed=4, failed=2)
    (project.path / "produced.txt").unlink()
    project.run_apart("-p", "no:xdist", "--ff")
    alpha = [cell.replace("pixart/", "alpha/") for cell in (INT8, REFERENCE, INT8_TE)]
    assert project.produced() == [*alpha, INT8, REFERENCE, INT8_TE]

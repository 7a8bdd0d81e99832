"""Ids are readable and stable, and choosing cells by them loads nothing."""

from __future__ import annotations

import pytest

from tests.making import CONFIG, INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

ALL = [f"test_matrix.py::test_quantized[{cell}]" for cell in (REFERENCE, INT8, INT8_TE)]


def ids(result: pytest.RunResult) -> list[str]:
    """The ids that ``--collect-only -q`` printed."""
    assert result.ret == pytest.ExitCode.OK
    return [line for line in result.outlines if "::" in line]


def test_collect_only(project: Project) -> None:
    """Given a matrix, when it is only collected, then its ids are printed and no results' folder is made."""
    assert ids(project.run("--collect-only", "-q")) == ALL
    assert not (project.path / ".qregress").exists()
    assert project.produced() == []


def test_ids_do_not_depend_on_the_order_of_pipelines(project: Project) -> None:
    """Given two pipelines in either order, then the ids are the same and a pipeline's stay together."""
    other = '[pipelines.alpha]\nsource = "path:pipeline"\ndevices = ["cpu"]\n'
    found = []
    for text in (other + CONFIG, CONFIG + other):
        (project.path / "qregress.toml").write_text(text)
        found.append(ids(project.run("--collect-only", "-q")))
    assert found[0] == found[1]
    assert found[0] == [line.replace("[pixart/", "[alpha/") for line in ALL] + ALL


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("pixart and int8", [INT8, INT8_TE]), ("reference", [REFERENCE]), ("int8 and not int8+te", [INT8])],
)
def test_chosen_by_words(expression: str, expected: list[str], project: Project) -> None:
    """Given words of an id, then the cells that have them run, in their order, and no other is reported."""
    result = project.run("-k", expression)
    result.assert_outcomes(passed=len(expected), deselected=3 - len(expected))
    assert project.produced() == expected
    assert [cell.id for cell in project.results().cells] == expected
    assert project.results().not_run == {}


def test_chosen_by_node_id(project: Project) -> None:
    """Given one node id, then that cell runs."""
    project.run(ALL[1]).assert_outcomes(passed=1)
    assert project.produced() == [INT8]


def test_nothing_chosen(project: Project) -> None:
    """Given words that no id has, then nothing was collected, as in any pytest run."""
    assert project.run("-k", "nothing").ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert not (project.path / ".qregress").exists()

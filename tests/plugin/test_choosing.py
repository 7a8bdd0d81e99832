"""``-k``, ``--deselect`` and node ids: what was not chosen is not missed."""

from __future__ import annotations

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

_TEST = "test_matrix.py::test_quantized"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-k", "int8 and not int8+te"), [INT8]),
        (("-k", "pixart and not reference"), [INT8, INT8_TE]),
        ((f"--deselect={_TEST}[{INT8}]",), [REFERENCE, INT8_TE]),
        ((f"{_TEST}[{INT8_TE}]", f"{_TEST}[{REFERENCE}]"), [INT8_TE, REFERENCE]),
    ],
    ids=["k", "k-not", "deselect", "node-ids"],
)
def test_chosen(options: tuple[str, ...], expected: list[str], project: Project, spread: tuple[str, ...]) -> None:
    """Given some cells of a matrix, then these run in the order asked for, and the run is complete and green."""
    result = project.run_apart(*options, *spread)
    assert result.ret == pytest.ExitCode.OK
    assert project.produced() == expected
    run = project.results()
    assert (sorted(cell.id for cell in run.cells), run.not_run, run.complete) == (sorted(expected), {}, True)


def test_required_cells_are_those_chosen(project: Project, spread: tuple[str, ...]) -> None:
    """Given ``-k`` and ``--qregress-require``, then a cell that was not chosen is not required."""
    assert project.run_apart("-k", "reference", "--qregress-require", *spread).ret == pytest.ExitCode.OK


def test_nothing_chosen(project: Project, spread: tuple[str, ...]) -> None:
    """Given words that no cell has, then nothing was collected, and no folder is made."""
    assert project.run_apart("-k", "nothing", *spread).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert not (project.path / ".qregress").exists()

"""Configurations in studies/ load with the package as it is."""

from pathlib import Path

import pytest

from qregress import config
from qregress.pipelines import pocket
from studies import published

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_loads(path: Path) -> None:
    """Every one has cells, and names nothing that is not there."""
    assert config.load(path).cells()


def test_there_are_some() -> None:
    """Without any, the test above would be skipped."""
    assert STUDIES


def test_the_pocket_study_has_every_family() -> None:
    """All pocket pipelines are in the pictures of docs/zoo.md, under the four settings that they show."""
    path = next(path for path in STUDIES if path.stem == "pocket")
    cells = {cell.id for cell in config.load(path).cells()}
    shown = ("reference", "float8", "int8", "int4")
    assert {f"{name}/{setting}/bs1" for name in pocket.names() for setting in shown} <= cells
    for name in pocket.names():
        assert (path.parents[1] / "docs" / "img" / f"zoo-{name}.webp").is_file()


def test_the_published_study_has_a_cell_for_every_row() -> None:
    """What is run by default is what is printed beside the published figures, no more and no less."""
    loaded = config.load(next(path for path in STUDIES if path.stem == "published"))
    name, cells = loaded.selection(None)
    rows = {row.cell for table in (published.PUBLISHED | published.BESIDE).values() for row in table}
    assert (name, set(cells)) == ("study", rows)
    tables = {cell for table in ("pixart", "sd3", "aura-flow") for cell in loaded.selection(table)[1]}
    assert tables == rows

"""The contact sheet: prompt, reference, quantized and difference of every image."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from qregress.report.sheet import write_sheet
from tests.making import make_record, make_scores

NAMES = ("images/00.png", "images/01.png")


def draw(folder: Path, *colors: tuple[int, int, int]) -> Path:
    """One image of 32 x 32 for each colour."""
    (folder / "images").mkdir(parents=True)
    for name, color in zip(NAMES, colors, strict=True):
        Image.new("RGB", (32, 32), color).save(folder / name)
    return folder


def colors_of(sheet: Path) -> set[tuple[int, ...]]:
    """All colours of flat areas: those of 200 or more pixels."""
    found = Image.open(sheet).convert("RGB").getcolors(2**16) or []
    return {color for count, color in found if count >= 200 and isinstance(color, tuple)}


def test_sheet_shows_all_three(tmp_path: Path) -> None:
    """Given images that differ by 10, then both and four times their difference are on the sheet."""
    reference = draw(tmp_path / "reference", (100, 0, 0), (0, 0, 200))
    cell = draw(tmp_path / "cell", (110, 0, 0), (0, 0, 200))
    record = make_record(images=NAMES, scores=make_scores())
    path = write_sheet(cell, record, reference)
    assert path == cell / "sheet.png"
    assert {(100, 0, 0), (110, 0, 0), (0, 0, 200), (40, 0, 0), (0, 0, 0)} <= colors_of(path)


def test_sheet_of_a_reference(tmp_path: Path) -> None:
    """Given a reference, which is compared with nothing, then the sheet has one column and is narrower."""
    reference = draw(tmp_path / "reference", (100, 0, 0), (0, 0, 200))
    record = make_record("pixart/reference/bs1", images=NAMES)
    alone = Image.open(write_sheet(reference, record, None)).size
    compared = Image.open(write_sheet(reference, record, reference)).size
    assert compared == (alone[0] + 2 * (32 + 8), alone[1])


def test_sheet_grows_with_the_images(tmp_path: Path) -> None:
    """Given another image, then the sheet is one row higher."""
    cell = draw(tmp_path / "cell", (100, 0, 0), (0, 0, 200))
    heights = [Image.open(write_sheet(cell, make_record(images=NAMES[:count]), None)).height for count in (1, 2)]
    assert heights[1] - heights[0] == 32 + 8

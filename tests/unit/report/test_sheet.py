"""The contact sheet: prompt, reference, quantized and difference of every image."""

from __future__ import annotations

from pathlib import Path

import msgspec
from PIL import Image

from qregress.frames import image_names
from qregress.record import Record
from qregress.report.sheet import write_sheet
from tests.making import make_record, make_scores

NAMES = ("images/00.png", "images/01.png")
Color = tuple[int, int, int]


def draw(folder: Path, *colors: Color, size: tuple[int, int] = (32, 32)) -> Path:
    """One image for each colour."""
    (folder / "images").mkdir(parents=True)
    for index, color in enumerate(colors):
        Image.new("RGB", size, color).save(folder / f"images/{index:02d}.png")
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


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    """Given images of 1024 px, then they are shown at half that."""
    cell = draw(tmp_path / "cell", (100, 0, 0), (0, 0, 200), size=(1024, 512))
    sheet = Image.open(write_sheet(cell, make_record(images=NAMES), None))
    assert sheet.size == (180 + 8 + 512 + 8, 24 + 2 * (256 + 8) + 8)


#: Of two videos of three frames.
COLORS: tuple[Color, ...] = tuple((20 * frame, 100 * prompt, 0) for prompt in range(2) for frame in range(3))
LIGHTER: tuple[Color, ...] = tuple((red, green, 10) for red, green, _ in COLORS)


def video(frames: int = 3, prompts: int = 2) -> Record:
    """Two prompts that give a video each."""
    names = image_names(frames * prompts, "png")
    scores = make_scores(lpips=(0.01,) * len(names), motion=(0.1,) * prompts)
    return make_record(images=tuple(names), scores=scores, frames=frames)


def strips(sheet: Path) -> list[list[tuple[int, ...]]]:
    """The colours along the lines of the sheet that tiles fill, left to right, without repetitions."""
    image = Image.open(sheet).convert("RGB")
    image = image.crop((288, 24, image.width, image.height))
    white = (255, 255, 255)
    found: list[list[tuple[int, ...]]] = []
    for top in range(image.height):
        line = [image.getpixel((left, top)) for left in range(image.width)]
        colors = [color for color in dict.fromkeys(line) if isinstance(color, tuple) and color != white]
        tiles = sum(line.count(color) for color in colors if line.count(color) >= 32)
        if tiles > len(line) / 2 and colors not in found[-1:]:
            found.append(colors)
    return found


def test_strips_of_videos(tmp_path: Path) -> None:
    """Given two videos, then each has three strips of its frames in order: reference, cell, four times the difference.

    The difference is the same in all frames here: one colour.
    """
    reference, cell = draw(tmp_path / "reference", *COLORS), draw(tmp_path / "cell", *LIGHTER)
    sheet = write_sheet(cell, video(), reference)
    apart = [(0, 0, 40)]
    first, second = ([list(COLORS[part]), list(LIGHTER[part]), apart] for part in (slice(3), slice(3, 6)))
    assert strips(sheet) == first + second


def test_strip_of_a_reference(tmp_path: Path) -> None:
    """Given a reference, then each video has one strip, and the sheet is as wide as with three."""
    reference, cell = draw(tmp_path / "reference", *COLORS), draw(tmp_path / "cell", *COLORS)
    compared = Image.open(write_sheet(cell, video(), reference)).size
    alone = write_sheet(cell, video(), None)
    assert strips(alone) == [list(COLORS[:3]), list(COLORS[3:])]
    assert Image.open(alone).size == (compared[0], compared[1] - 2 * 2 * 34)


def test_long_videos_of_large_frames_are_shrunk(tmp_path: Path) -> None:
    """Given sixteen frames of 512 x 256, then a strip is no wider than a screen, in the frames' own proportion."""
    cell = draw(tmp_path / "cell", *((10 * frame, 0, 0) for frame in range(16)), size=(512, 256))
    sheet = write_sheet(cell, video(16, 1), None)
    assert Image.open(sheet).width < 2000
    assert Image.open(sheet).height == 24 + 50 + 2 + 16 + 8 + 8
    assert strips(sheet) == [[(10 * frame, 0, 0) for frame in range(16)]]


def test_a_long_caption_beside_a_low_strip(tmp_path: Path) -> None:
    """Given a prompt of nine lines beside one strip of small frames, then the next prompt begins below it."""
    cell = draw(tmp_path / "cell", *COLORS)
    short = Image.open(write_sheet(cell, video(), None)).height
    long = msgspec.structs.replace(video(), prompts=("a large red circle at the top " * 9, "a small one"))
    assert Image.open(write_sheet(cell, long, None)).height - short > 2 * 100

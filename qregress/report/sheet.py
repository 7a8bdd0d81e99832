"""One picture per cell: prompt, reference, quantized and their difference, side by side; of videos one above the other.

All sizes are px.
"""

from __future__ import annotations

import statistics
import textwrap
from functools import cache
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

from qregress.record import Record

_GAP = 8
_LARGEST = 512
_TEXT = 180
_HEADER = 24
_AMPLIFY = 4
#: A strip of frames is shrunk to this width, but its frames to no less than that.
_STRIP, _SMALLEST = 1600, 64
_LABEL = 100  # what a strip shows, left of it
_SEAM = 2  # between frames and strips that belong together
_NUMBERS = 16  # the line below a prompt's strips
_LINE = 17  # of a caption


def write_sheet(folder: Path, record: Record, reference: Path | None) -> Path:
    """Draw ``sheet.png`` beside a cell's images; without a reference, prompt and image only."""
    rows = [_row(folder / name, reference / name if reference is not None else None) for name in record.images]
    titles = ["reference", record.setting, f"difference x {_AMPLIFY}"] if reference is not None else [record.setting]
    frames = record.frames or 1
    sheet = _images(record, rows, titles) if frames == 1 else _videos(record, rows, titles, frames)
    path = folder / "sheet.png"
    sheet.save(path)
    return path


def _row(path: Path, reference: Path | None) -> list[Image.Image]:
    image = Image.open(path).convert("RGB")
    if reference is None:
        return [image]
    base = Image.open(reference).convert("RGB")
    difference = ImageChops.difference(base, image).point(lambda value: min(255, value * _AMPLIFY))
    return [base, image, difference]


def _shrunk(image: Image.Image) -> Image.Image:
    """At most as large as can be seen side by side: eight prompts at full size would be 25 million pixels."""
    image.thumbnail((_LARGEST, _LARGEST))
    return image


def _images(record: Record, rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """A row for each prompt."""
    rows = [[_shrunk(image) for image in row] for row in rows]
    tile = max(image.width for row in rows for image in row)
    height = max(image.height for row in rows for image in row)
    sheet, draw = _canvas(record, len(titles) * (tile + _GAP), len(rows) * (height + _GAP))
    for column, title in enumerate(titles):
        _write(draw, _TEXT + _GAP + column * (tile + _GAP), 6, title)
    for index, row in enumerate(rows):
        top = _HEADER + index * (height + _GAP)
        _write(draw, _GAP, top, _caption(record, index))
        distance = record.scores.lpips[index] if record.scores is not None and record.scores.lpips else None
        if distance is not None:
            _write(draw, _GAP, top + height - 16, f"LPIPS {distance:.4f}", fill="gray")
        for column, image in enumerate(row):
            sheet.paste(image, (_TEXT + _GAP + column * (tile + _GAP), top))
    return sheet


def _videos(record: Record, rows: list[list[Image.Image]], titles: list[str], frames: int) -> Image.Image:
    """A strip of frames for each title and prompt; below them each frame's LPIPS."""
    first = rows[0][0]
    tile = min(first.width, max(_SMALLEST, _STRIP // frames))
    height = max(1, round(first.height * tile / first.width))
    prompts = len(rows) // frames
    captions = [_caption(record, prompt) for prompt in range(prompts)]
    texts = [_distances(record, prompt, frames) for prompt in range(prompts)]
    # Of one strip of small frames the texts beside it are the higher.
    lines = [_LINE * len(one.splitlines()) + _NUMBERS * len(more) for one, more in zip(captions, texts, strict=True)]
    block = max(len(titles) * (height + _SEAM) + _NUMBERS, *lines) + _GAP
    left = _TEXT + _LABEL + _GAP
    sheet, draw = _canvas(record, _LABEL + frames * (tile + _SEAM) + _GAP, prompts * block)
    for frame in range(frames):
        _write(draw, left + frame * (tile + _SEAM), 6, f"frame {frame}")
    for prompt in range(prompts):
        top = _HEADER + prompt * block
        _write(draw, _GAP, top, captions[prompt])
        for line, text in enumerate(reversed(texts[prompt])):
            _write(draw, _GAP, top + block - _GAP - _NUMBERS * (line + 1), text, fill="gray")
        for strip, title in enumerate(titles):
            at = top + strip * (height + _SEAM)
            _write(draw, _TEXT + _GAP, at, "\n".join(textwrap.wrap(title, 14)[:3]))
            for frame in range(frames):
                image = rows[prompt * frames + frame][strip]
                if image.size != (tile, height):
                    image = image.resize((tile, height), Image.Resampling.BOX)
                sheet.paste(image, (left + frame * (tile + _SEAM), at))
        for frame, distance in enumerate(_lpips(record, prompt, frames)):
            under = top + len(titles) * (height + _SEAM)
            _write(draw, left + frame * (tile + _SEAM), under, f"{distance:.4f}", fill="gray")
    return sheet


def _distances(record: Record, prompt: int, frames: int) -> list[str]:
    """What a prompt's video is away from its reference, a line for each score."""
    lines = []
    if found := _lpips(record, prompt, frames):
        lines.append(f"LPIPS {statistics.fmean(found):.4f}, worst {max(found):.4f}")
    if record.scores is not None and record.scores.motion:
        lines.append(f"motion {record.scores.motion[prompt]:.4f}")
    return lines


def _lpips(record: Record, prompt: int, frames: int) -> tuple[float, ...]:
    scores = record.scores.lpips if record.scores is not None else ()
    return scores[prompt * frames : (prompt + 1) * frames]


def _canvas(record: Record, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Right of the column of texts and below the line of titles there is so much room."""
    sheet = Image.new("RGB", (_TEXT + width + _GAP, _HEADER + height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, _GAP, 6, record.id)
    return sheet, draw


def _caption(record: Record, prompt: int) -> str:
    return "\n".join(textwrap.wrap(record.prompts[prompt], 26)[:9]) if prompt < len(record.prompts) else ""


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, text: str, fill: str = "black") -> None:
    draw.text((left, top), text, fill=fill, font=_font())


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(12)

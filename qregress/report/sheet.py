"""One picture per cell: prompt, reference, quantized and their difference, side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

from qregress.record import Record

_GAP = 8
_TEXT = 180
_AMPLIFY = 4


def write_sheet(folder: Path, record: Record, reference: Path | None) -> Path:
    """Draw ``sheet.png`` beside a cell's images; without a reference, prompt and image only."""
    rows = [_row(folder / name, reference / name if reference is not None else None) for name in record.images]
    tile = max(image.width for row in rows for image in row)
    height = max(image.height for row in rows for image in row)
    titles = ["reference", record.setting, f"difference x {_AMPLIFY}"] if reference is not None else [record.setting]
    font = ImageFont.load_default(12)
    header = 24
    sheet = Image.new(
        "RGB",
        (_TEXT + len(titles) * (tile + _GAP) + _GAP, header + len(rows) * (height + _GAP) + _GAP),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 6), record.id, fill="black", font=font)
    for column, title in enumerate(titles):
        draw.text((_TEXT + _GAP + column * (tile + _GAP), 6), title, fill="black", font=font)
    for index, row in enumerate(rows):
        top = header + index * (height + _GAP)
        caption = "\n".join(textwrap.wrap(record.prompts[index], 26)[:9]) if index < len(record.prompts) else ""
        draw.text((_GAP, top), caption, fill="black", font=font)
        distance = record.scores.lpips[index] if record.scores is not None and record.scores.lpips else None
        if distance is not None:
            draw.text((_GAP, top + height - 16), f"LPIPS {distance:.4f}", fill="gray", font=font)
        for column, image in enumerate(row):
            sheet.paste(image, (_TEXT + _GAP + column * (tile + _GAP), top))
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

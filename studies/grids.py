"""Draw docs/img/zoo-*.webp from a finished run: a picture per pipeline, a row per setting, a column per prompt.

`python studies/grids.py RUN`. Of a video the middle frame is drawn.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from qregress.matrix import REFERENCE
from qregress.record import Record
from qregress.store.finished import FinishedRun
from qregress.store.run import RunFolder

ROOT = Path(__file__).parents[1]
SHOWN = (REFERENCE, "float8", "int8", "int4")
# px
TILE, GAP, LABEL, LINE, HEADER = 128, 4, 88, 12, 108


def draw(rows: list[tuple[Record, Path]]) -> Image.Image:
    """One pipeline's settings, each with its record and the folder of its images."""
    prompts = rows[0][0].prompts
    width, height = LABEL + len(prompts) * (TILE + GAP), HEADER + len(rows) * (TILE + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for column, prompt in enumerate(prompts):
        caption = "\n".join(textwrap.wrap(prompt, 22))
        pen.text((LABEL + column * (TILE + GAP), GAP), caption, fill="black", font=font)
    for row, (record, folder) in enumerate(rows):
        top = HEADER + row * (TILE + GAP)
        label = record.setting
        if record.scores is not None and record.scores.lpips:
            label += f"\n\nLPIPS\n{sum(record.scores.lpips) / len(record.scores.lpips):.4f}"
        pen.text((GAP, top), label, fill="black", font=font)
        frames = record.frames or 1
        for column in range(len(prompts)):
            with Image.open(folder / record.images[column * frames + frames // 2]) as image:
                sheet.paste(image.convert("RGB"), (LABEL + column * (TILE + GAP), top))
    return sheet


def main() -> None:
    """Draw every pipeline of the run that has all the settings shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of studies/pocket.toml")
    given = parser.parse_args()
    folder = RunFolder(given.run)
    with FinishedRun(given.run) as finished:
        records = {cell.id: finished.record(cell.id) for cell in finished.run.cells}
    pipelines = sorted({record.pipeline for record in records.values() if record is not None})
    for pipeline in pipelines:
        found = (records.get(f"{pipeline}/{setting}/bs1") for setting in SHOWN)
        rows = [(record, folder.cell(record.id)) for record in found if record is not None and record.images]
        if [record.setting for record, _ in rows] != [*SHOWN]:
            print(f"{pipeline}: not drawn, it has {', '.join(record.setting for record, _ in rows) or 'no images'}")
            continue
        path = ROOT / "docs" / "img" / f"zoo-{pipeline}.webp"
        draw(rows).save(path, quality=85)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

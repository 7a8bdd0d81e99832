"""The published tables, with what a run of studies/published.toml measured beside them.

python studies/published.py runs/published > study.md

Takes a finished run's folder, or an archive of it. A row that was not run is left empty.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from qregress.record import Record
from qregress.store.finished import FinishedRun

GIB = 2**30
#: How far static memory may be from the published figure before a row counts as one that disagrees.
_SHARE, _ABSOLUTE = 0.015, 0.10


class Row(NamedTuple):
    """A published figure: memory in GiB and seconds a call, of a cell of the study."""

    cell: str
    memory: float
    seconds: float


#: "Memory-efficient Diffusion Transformers with Quanto and Diffusers", 2024: one H100 of 80 GB, CUDA 12.2, torch 2.4.1.
PUBLISHED = {
    "PixArt-Sigma": (
        Row("pixart-sigma/reference/bs1", 12.086, 1.200),
        Row("pixart-sigma/reference/bs4", 12.087, 4.482),
        Row("pixart-sigma/float8/bs1", 11.547, 1.540),
        Row("pixart-sigma/float8/bs4", 11.548, 5.109),
        Row("pixart-sigma/float8+te/bs1", 5.363, 1.601),
        Row("pixart-sigma/float8+te/bs4", 5.364, 5.141),
        Row("pixart-sigma/int8+te/bs1", 5.363, 1.538),
        Row("pixart-sigma/int8+te-bf16/bs1", 5.364, 1.454),
        Row("pixart-sigma/float8+te-bf16/bs1", 5.363, 1.495),
        Row("pixart-sigma/int8+te-fused/bs1", 5.536, 1.504),
        Row("pixart-sigma/int8+te/bs4", 5.365, 5.129),
        Row("pixart-sigma/int8+te-fused/bs4", 5.538, 4.989),
        Row("pixart-sigma/int4/bs1", 9.380, 7.431),
        Row("pixart-sigma/int4+te/bs1", 3.058, 7.604),
    ),
    "Stable Diffusion 3": (
        Row("sd3/reference/bs1", 16.403, 2.118),
        Row("sd3/float8+te/bs1", 8.200, 2.858),
        Row("sd3/float8+te3/bs1", 8.294, 2.781),
        Row("sd3/float8+te12/bs1", 14.384, 2.833),
        Row("sd3/float8+te2/bs1", 14.475, 2.818),
        Row("sd3/float8+te1/bs1", 14.384, 2.730),
        Row("sd3/float8+te23/bs1", 8.325, 2.875),
        Row("sd3/float8+te13/bs1", 8.204, 2.789),
    ),
}
#: Studied without figures.
BESIDE = {
    "AuraFlow": tuple(
        Row(f"aura-flow/{setting}/bs1-10", 0.0, 0.0) for setting in ("reference", "float8", "float8+te", "int8+te")
    )
}
_TITLES = (
    "cell",
    "published GiB",
    "GiB",
    "difference",
    "published s",
    "s",
    "x ref",
    "published x ref",
    "busy s, first steps",
    "x ref",
)


def main(path: str) -> None:
    """Print the document."""
    with FinishedRun(Path(path)) as run:
        for title, rows in (PUBLISHED | BESIDE).items():
            print(f"\n## {title}\n\n| {' | '.join(_TITLES)} |\n|{'---|' * len(_TITLES)}")
            references = {row.cell.split("/")[2]: row.seconds for row in rows if "/reference/" in row.cell}
            records = [run.record(row.cell) for row in rows]
            for row, record in zip(rows, records, strict=True):
                print(_line(row, record, references[row.cell.split("/")[2]]))
            for row, record in zip(rows, records, strict=True):
                for line in _explained(row, record):
                    print(line)


def _line(row: Row, record: Record | None, reference: float) -> str:
    """Published and measured side by side; a dash for what is not there."""
    cells = [row.cell, _number(row.memory, ".3f"), "-", "-", _number(row.seconds, ".3f"), *["-"] * 5]
    cells[7] = _number(row.seconds / reference if reference else 0.0, ".3f")
    if record is not None and record.memory is not None:
        static = record.memory.static_bytes / GIB
        cells[2] = f"{static:.3f}"
        cells[3] = f"{static - row.memory:+.3f} ({static / row.memory - 1:+.1%})" if row.memory else "-"
    timing = record.timing if record is not None else None
    if timing is not None:
        cells[5] = f"{statistics.median(timing.samples_s):.3f}"
        if timing.reference_s:
            cells[6] = f"{statistics.median(timing.samples_s) / statistics.median(timing.reference_s):.3f}"
        cells[8] = f"{min(timing.busy_s):.3f}" if timing.busy_s else "-"
        cells[9] = f"{timing.busy_ratio:.3f}" if timing.busy_ratio is not None else "-"
    return f"| {' | '.join(cells)} |"


def _explained(row: Row, record: Record | None) -> list[str]:
    """Of a row whose memory disagrees: what its bytes are, by component and weight type, from the manifest."""
    if record is None or record.memory is None or not row.memory:
        return []
    static = record.memory.static_bytes / GIB
    if abs(static - row.memory) <= max(_SHARE * row.memory, _ABSOLUTE):
        return []
    lines = [f"\n`{row.cell}` is {static - row.memory:+.3f} GiB off. What it stores:"]
    for component, nbytes in record.memory.components.items():
        manifest = record.coverage.get(component)
        kinds: dict[str, int] = {}
        for module in manifest.modules if manifest is not None else ():
            kind = module.found or module.dtype
            kinds[kind] = kinds.get(kind, 0) + module.bytes
        told = ", ".join(f"{kind} {size / GIB:.3f}" for kind, size in sorted(kinds.items(), key=lambda each: -each[1]))
        lines.append(f"- {component} {nbytes / GIB:.3f} GiB" + (f": {told}" if told else ""))
    rest = record.memory.static_bytes - record.memory.storage_bytes
    lines.append(f"- beside what components store {rest / GIB:.3f} GiB")
    return lines


def _number(value: float, form: str) -> str:
    return format(value, form) if value else "-"


if __name__ == "__main__":
    main(sys.argv[1])

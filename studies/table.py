"""The figures of finished runs as a Markdown table, a row for each cell, later runs over earlier ones.

python studies/table.py runs/settings > table.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from qregress.record import CellResult, Run, read

_TITLES = ("cell", "quantized", "memory x ref", "LPIPS mean", "worst", "of what kernels may err", "verdict")


def main(folders: list[str]) -> None:
    """Print one table."""
    cells: dict[str, CellResult] = {}
    for folder in folders:
        cells |= {cell.id: cell for cell in read(Path(folder) / "run.json", Run).cells}
    print(f"| {' | '.join(_TITLES)} |\n|{'---|' * len(_TITLES)}")
    for cell_id in sorted(cells):
        print(row(cells[cell_id]))


def row(cell: CellResult) -> str:
    """One cell; what was not measured is a dash."""
    found = {check.name: check for check in cell.checks}
    kernels = found.get("kernel.fidelity")
    failed = [check.name for check in cell.checks if check.verdict in {"fail", "waived"}]
    figures = (
        f"{cell.coverage.quantized}" if cell.coverage is not None and cell.coverage.eligible else "-",
        _number(cell.memory_ratio, ".3f"),
        _number(cell.scores.get("lpips"), ".5f"),
        _number(cell.scores.get("lpips_worst"), ".5f"),
        _number(kernels.value if kernels is not None else None, ".2f"),
        " ".join([cell.verdict, *failed]),
    )
    return f"| {cell.id} | {' | '.join(figures)} |"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The embedded matrix: every cell is one item."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qregress.items.handle import CellHandle


def test_quantized(qregress_cell: CellHandle) -> None:
    """Every cell of the embedded matrix is within its budgets."""
    qregress_cell.check()

"""The embedded matrix: every cell is one item."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qregress.pytest_session import CellHandle


def test_quantized(qregress_cell: CellHandle) -> None:
    """Every cell of the embedded matrix is within its budgets."""
    qregress_cell.check()

"""The test file that ``qregress run`` runs: what ``qregress init`` would write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qregress.items.handle import CellHandle


def test_quantized(qregress_cell: CellHandle) -> None:
    """Run and judge one cell."""
    qregress_cell.check()

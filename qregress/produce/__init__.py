"""Cells to records. Knows nothing of budgets."""

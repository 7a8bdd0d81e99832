"""Cells as pytest's items: what the hooks in ``plugin.py`` delegate to."""

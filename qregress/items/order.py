"""The order of items: cells of one pipeline stay together, as loading its weights and its reference costs the most."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def together(items: list[T], group_of: Callable[[T], str | None]) -> list[T]:
    """Bring each group to where its first item is; what has no group (``None``) keeps its order, and so do groups."""
    groups: dict[str, list[T]] = {}
    for item in items:
        name = group_of(item)
        if name is not None:
            groups.setdefault(name, []).append(item)
    ordered: list[T] = []
    for item in items:
        name = group_of(item)
        ordered += [item] if name is None else groups.pop(name, [])
    return ordered

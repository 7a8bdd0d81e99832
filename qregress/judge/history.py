"""What a record is compared with, and what is said where there is nothing to compare."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from qregress.record import Check
from qregress.store.baseline import Baseline, Entry


class History(msgspec.Struct, frozen=True):
    """What a record is compared with.

    ``entry``: what was accepted; ``missing``: why there is none. ``moved``: levels of 8 bits, root mean square, between
    each accepted reference image and today's; ``None`` where images are not kept. Called only where digests differ.
    """

    entry: Entry | None
    missing: str = ""
    moved: Callable[[], tuple[float, ...] | None] = lambda: None


def gone(name: str, history: History, had: Callable[[Baseline], bool]) -> Check | None:
    """What was measured when it was accepted and is not any more would else be judged by nobody."""
    if history.entry is None or not had(history.entry.baseline):
        return None
    return Check(
        name=name,
        verdict="fail",
        why="was measured when it was accepted, and is not now; if that is meant, accept this run",
    )


def new(name: str, history: History) -> Check:
    """Nothing was accepted, or not this figure of it."""
    return Check(name=name, verdict="new", why=history.missing or "the accepted record has no such figure")

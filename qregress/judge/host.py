"""What the host of a CUDA device did to a ratio of wall times, and whether it is as fast as when that was accepted."""

from __future__ import annotations

import math

import msgspec

from qregress import units
from qregress.judge.noise import FLOORS
from qregress.record import Timing
from qregress.stats import low_quantile

#: Ratios of a busy device move by no more; nor does the wall time of a reference, per second in which it is busy.
_STEADY = 1 + FLOORS["latency of a busy device"].relative


class Excuse(msgspec.Struct, frozen=True):
    """Why a ratio of wall times may be the host's, in words.

    ``factor``: how many times larger the host made it at most. ``hides``: it made it smaller, which may hide what did
    not.
    """

    factor: float
    hides: bool
    why: str


class _Waiting(msgspec.Struct, frozen=True):
    """What waiting for the host has done since: to the ratio of wall times, and to the reference's per busy second."""

    ratio: float
    reference: float


class _Pace(msgspec.Struct, frozen=True):
    """Seconds that the host takes, as a multiple of what it took; ``None``: not known. What tells so, in words."""

    factor: float | None
    why: str


def excuse(timing: Timing, old: Timing, room: float) -> Excuse | None:
    """``None`` where the host, as far as anything tells, had no more part in the ratio than when that was accepted.

    A ratio of wall times is, within a few per cent, one of busy times and one of what devices wait for their host
    besides. Where the second has moved, either the host has another pace or its code has more to do. Two things tell
    of its pace, neither of them surely: launch overhead, which is sampled shortly and between calls, and the reference,
    in which nothing is quantized but which need not wait where the cell does.

    Args:
        timing: What is judged.
        old: What was accepted.
        room: The share of the ratio that its margin has for what a host may do.
    """
    waiting = _waiting(timing, old)
    pace = _pace(timing, old, waiting.reference if waiting is not None else 1.0, 1 + room)
    if pace is None or (waiting is None and pace.factor is None):
        return None
    if waiting is None:
        factor = pace.factor or 1.0
        return Excuse(max(factor, 1 / factor), True, f"waiting for the host was not measured, and {pace.why}")
    most = math.inf
    if pace.factor is not None:
        # A slower host has a cell wait as much longer at most; a faster one only has its reference wait less.
        most = pace.factor if pace.factor > 1 else 1 / waiting.reference
    return Excuse(
        max(1.0, min(most, waiting.ratio)),
        waiting.ratio < 1 / _STEADY,
        f"waiting for the host has multiplied the ratio by {waiting.ratio:.2f} since, and {pace.why}",
    )


def _waiting(timing: Timing, old: Timing) -> _Waiting | None:
    """``None`` where it was not profiled in both, or not of the same part of a call."""
    shares = (old.host_bound, timing.host_bound, old.reference_host_bound, timing.reference_host_bound)
    known = [share for share in shares if share is not None and share < 1]
    if len(known) < len(shares) or timing.busy_steps != old.busy_steps:
        return None
    cell_then, cell, reference_then, reference = (1 - share for share in known)
    slower = reference_then / reference
    return _Waiting((cell_then / cell) / slower, slower)


def _pace(timing: Timing, old: Timing, reference: float, steady: float) -> _Pace | None:
    """``None`` where nothing tells that it is another one. ``reference``: see ``_Waiting``."""
    if not timing.launch_s or not old.launch_s:
        when = "now" if old.launch_s else "then (accept it again)"
        return _Pace(None, f"launch overhead was not measured {when}")
    now, then = low_quantile(timing.launch_s), low_quantile(old.launch_s)
    # Where they differ, the reference is right: it was measured in the calls.
    if reference > _STEADY or reference < 1 / _STEADY:
        slower = max(now / then, reference) if reference > 1 else reference
        return _Pace(slower, f"its reference takes {reference:.2f} times as long as then, per second of busy time")
    if now / then > steady or now / then < 1 / steady:
        why = f"launch overhead was {units.format_seconds(then)} and is {units.format_seconds(now)}"
        return _Pace(now / then, why)
    return None

"""What the host of a CUDA device did to a ratio of wall times, and whether it is as fast as when that was accepted."""

from __future__ import annotations

import math

import msgspec

from qregress import units
from qregress.judge.noise import FLOORS
from qregress.record import Timing
from qregress.stats import low_quantile

#: Up to here a ratio is not the host's: ratios of a busy device may move as much.
_MOVED = 1 + FLOORS["latency of a busy device"].relative
#: Up to here a host is as fast as it was: it alone cannot move a ratio beyond the margin of calls that wait for it.
_PACE = 1 + FLOORS["latency"].relative


class Excuse(msgspec.Struct, frozen=True):
    """Why a ratio of wall times may be the host's: the factor by which it could be at most, and in words."""

    factor: float
    why: str


def excuse(timing: Timing, old: Timing) -> Excuse | None:
    """``None`` where the host moved the ratio no more than when it was accepted, or is as fast as it was then.

    A ratio of wall times is one of busy times, and one of what the device waits for its host besides. Where the second
    has changed, either the host has or the code that it runs. It is the code where launch overhead is what it was, and
    the reference, in which nothing is quantized, waits no longer either: launches are few and short beside calls, and a
    reference that hardly waits says little of a cell that does, so both are asked.
    """
    moved = _moved(timing, old)
    if moved is not None and _either_way(moved) <= _MOVED:
        return None
    told = (
        f"what calls wait for their host made the ratio {moved:.2f} times what it was"
        if moved is not None
        else "how long calls wait for their host is not known"
    )
    pace, why = _pace(timing, old)
    if why is None:
        return None
    # A host that made the ratio smaller explains nothing of one that is larger.
    return Excuse(min(pace, max(1.0, moved) if moved is not None else math.inf), f"{told}; {why}")


def _moved(timing: Timing, old: Timing) -> float | None:
    """How many times larger a ratio is for what devices waited then and now; ``None``: not known."""
    shares = (timing.host_bound, timing.reference_host_bound, old.host_bound, old.reference_host_bound)
    busy = [1 - share for share in shares if share is not None]
    if len(busy) < len(shares) or not all(busy):
        return None
    cell, reference, cell_then, reference_then = busy
    return (reference / cell) / (reference_then / cell_then)


def _pace(timing: Timing, old: Timing) -> tuple[float, str | None]:
    """How many times faster or slower the host is than then, and what tells so; ``None``: nothing does."""
    if not timing.launch_s or not old.launch_s:
        when = "now" if old.launch_s else "when it was accepted"
        return math.inf, f"its launch overhead was not measured {when}"
    now, then = low_quantile(timing.launch_s), low_quantile(old.launch_s)
    launch, reference = _either_way(now / then), 1.0
    share, share_then = timing.reference_host_bound, old.reference_host_bound
    if share is not None and share_then is not None and share < 1 > share_then:
        reference = _either_way((1 - share) / (1 - share_then))
    if launch > _PACE:
        took = f"{units.format_seconds(now)} to launch a kernel, and {units.format_seconds(then)} when it was accepted"
        return max(launch, reference), f"it took {took}"
    if reference > _PACE:
        return reference, f"its reference waits for {share:.0%} of its time, and did for {share_then:.0%}"
    return 1.0, None


def _either_way(factor: float) -> float:
    return max(factor, 1 / factor)

"""Checks of time against limits that the user sets: wall seconds of calls, and seconds in which a device was busy."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from qregress import units
from qregress.judge.budgets import Limit
from qregress.matrix import REFERENCE
from qregress.record import Check, Record, Timing, Verdict
from qregress.stats import CONFIDENCE, FEWEST, ratio

#: Says why an absolute limit does not bind where a record was made: see ``checks.elsewhere``.
Elsewhere = Callable[[str, Limit, float, Record], Check | None]


def on_cuda(record: Record) -> bool:
    """Whether it was made there; not where nobody knows."""
    return record.fingerprint is not None and record.fingerprint.device.startswith("cuda")


def disturbed(name: str, timing: Timing, value: float | None = None) -> Check | None:
    """Void, where the device was another one while samples were taken."""
    if not timing.disturbed:
        return None
    return Check(name=name, verdict="void", value=value, why=f"{'; '.join(timing.disturbed)}: run it again")


def latency(record: Record, limit: Limit | None, elsewhere: Elsewhere) -> Check | None:
    """Seconds per pipeline call, as a ratio to the reference taken in the same session, or absolute."""
    timing = record.timing
    if limit is None or timing is None or not timing.samples_s or record.setting == REFERENCE:
        return None
    if not limit.relative:
        median, name = statistics.median(timing.samples_s), "latency.budget"
        return (
            elsewhere(name, limit, median, record)
            or disturbed(name, timing, median)
            or _absolute(name, "median", median, limit)
        )
    found = ratio(timing.samples_s, timing.reference_s) if len(timing.reference_s) == len(timing.samples_s) else None
    if found is None:
        return Check(
            name="latency.ratio", verdict="void", basis=limit.basis, why=f"fewer than {FEWEST} interleaved pairs"
        )
    void = disturbed("latency.ratio", timing, found.value)
    if void is not None:
        return void
    span = f"{CONFIDENCE:.0%} interval {found.low:.3f} to {found.high:.3f}"
    interval = f"{found.value:.3f}x, {span}, {len(timing.samples_s)} pairs"
    verdict: Verdict
    if not found.excludes(limit.value):
        verdict, why = "void", f"too noisy to decide: {interval} straddles {limit.value:g}x ({limit.basis})"
    else:
        verdict = "fail" if found.low > limit.value else "pass"
        why = f"{interval}, limit {limit.value:g}x ({limit.basis})"
    return Check(
        name="latency.ratio",
        verdict=verdict,
        value=found.value,
        worst=found.high,
        limit=limit.value,
        basis=limit.basis,
        why=why,
    )


def busy(record: Record, limit: Limit | None, elsewhere: Elsewhere) -> Check | None:
    """Seconds in which a CUDA device was busy per call, as a ratio to the reference's, or absolute.

    What a slow host adds is not in it. Nothing is asked on a CPU.
    """
    timing, name = record.timing, "latency.busy"
    if limit is None or timing is None or record.setting == REFERENCE:
        return None
    if not timing.busy_s:
        why = "torch's profiler saw no kernel: busy time is not known"
        return Check(name=name, verdict="void", basis=limit.basis, why=why) if on_cuda(record) else None
    least = min(timing.busy_s)
    if not limit.relative:
        return (
            elsewhere(name, limit, least, record)
            or disturbed(name, timing, least)
            or _absolute(name, "busy", least, limit)
        )
    value = timing.busy_ratio
    if value is None:
        return Check(name=name, verdict="void", basis=limit.basis, why="the reference was not profiled beside it")
    why = (
        f"{value:.3f}x: {_least(timing.busy_s, timing.reference_busy_s or ())}, limit {limit.value:g}x ({limit.basis})"
    )
    return disturbed(name, timing, value) or Check(
        name=name,
        verdict="fail" if value > limit.value else "pass",
        value=value,
        limit=limit.value,
        basis=limit.basis,
        why=why,
    )


def _least(mine: Sequence[float], other: Sequence[float]) -> str:
    return f"busy for {units.format_seconds(min(mine))}, the reference for {units.format_seconds(min(other))}"


def _absolute(name: str, what: str, value: float, limit: Limit) -> Check:
    why = f"{what} {units.format_seconds(value)}, limit {units.format_seconds(limit.value)} ({limit.basis})"
    verdict: Verdict = "fail" if value > limit.value else "pass"
    return Check(name=name, verdict=verdict, value=value, limit=limit.value, basis=limit.basis, why=why)

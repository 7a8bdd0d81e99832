"""Checks of time against the accepted record: ratios to the reference of the same session, then and now."""

from __future__ import annotations

from qregress.judge.history import History, gone, new
from qregress.judge.host import excuse
from qregress.judge.noise import NOISY, busy_margin, busy_noise, is_host_bound, latency_margin, latency_room
from qregress.judge.timing import disturbed, on_cuda
from qregress.record import Check, Record, Timing, Verdict
from qregress.stats import FEWEST, Ratio, ratio
from qregress.store.baseline import Entry


def latency(record: Record, history: History) -> Check | None:
    """The ratio to the reference of the same session against the accepted ratio; both were interleaved."""
    timing, name, entry = record.timing, "regression.latency", history.entry
    old = entry.accepted.timing if entry is not None else None
    if timing is None or not timing.reference_s:
        return gone(name, history, lambda _: old is not None and bool(old.reference_s))
    now = ratio(timing.samples_s, timing.reference_s)
    if entry is None or old is None:
        return new(name, history)
    was = ratio(old.samples_s, old.reference_s)
    void = _no_ratio(record, entry, timing, old, now, was)
    if void is not None or now is None or was is None:
        return Check(name=name, verdict="void", value=now.value if now is not None else None, why=void or "no ratio")
    added = latency_margin(was, timing, old)
    limit = was.value + added.value
    text = f"{now.value:.3f}x, interval {now.low:.3f} to {now.high:.3f}, limit {limit:.3f}x ({added.basis})"
    host = excuse(timing, old, latency_room(timing, old)) if on_cuda(record) else None
    if host is not None and now.low <= host.factor * limit and (host.hides or now.low > limit):
        return Check(
            name=name, verdict="void", value=now.value, limit=limit, basis=added.basis, why=f"{host.why}: {text}"
        )
    if not now.excludes(limit):
        return Check(
            name=name, verdict="void", value=now.value, limit=limit, basis=added.basis, why=f"too noisy: {text}"
        )
    return Check(
        name=name,
        verdict="fail" if now.low > limit else "pass",
        value=now.value,
        worst=now.high,
        limit=limit,
        basis=added.basis,
        why=text,
        better=now.high < was.value - added.value,
    )


def busy(record: Record, history: History) -> Check | None:
    """The ratio of seconds in which a CUDA device was busy: what a slow or disturbed host adds is not in it."""
    timing, name, entry = record.timing, "regression.busy", history.entry
    old = entry.accepted.timing if entry is not None else None
    was = old.busy_ratio if old is not None else None
    now = timing.busy_ratio if timing is not None else None
    if timing is None or now is None:
        return gone(name, history, lambda _: was is not None)
    if entry is None or old is None or was is None:
        return new(name, history)
    why = _another_device(record, entry) or _not_alike(timing, old)
    if why is not None:
        return Check(name=name, verdict="void", value=now, why=why)
    added, noise = busy_margin(was), busy_noise(was, timing, old)
    limit = was + added.value
    text = f"busy {now:.3f}x as long as the reference, limit {limit:.3f}x ({added.basis})"
    verdict: Verdict = "pass" if now <= limit else "fail"
    if limit < now <= limit + noise:
        verdict, text = "void", f"too noisy, profiled calls differ by {2 * noise / was:.0%}: {text}"
    return disturbed(name, timing, now) or Check(
        name=name,
        verdict=verdict,
        value=now,
        limit=limit,
        basis=added.basis,
        why=text,
        better=now < was - added.value - noise,
    )


def _not_alike(timing: Timing, old: Timing) -> str | None:
    """Why what was accepted says nothing of what was profiled now."""
    if old.busy_steps == timing.busy_steps:
        return _disturbed_then(old)
    then, now = (f"{steps} steps" if steps else "whole calls" for steps in (old.busy_steps, timing.busy_steps))
    return f"accepted of {then}, profiled over {now}: their ratios are not comparable"


def _disturbed_then(old: Timing) -> str | None:
    return f"the accepted run was disturbed: {old.disturbed[0]}; accept a calmer one" if old.disturbed else None


def _another_device(record: Record, entry: Entry) -> str | None:
    mine, theirs = record.fingerprint, entry.accepted.fingerprint
    if mine is None or mine.device_name == theirs.device_name:
        return None
    return f"accepted on {theirs.device_name}, this is {mine.device_name}: their ratios are not comparable"


def _another_host(record: Record, entry: Entry) -> str | None:
    """Of a CPU the processor and its threads; of a GPU the processor beside it, where calls wait for that."""
    mine, theirs = record.fingerprint, entry.accepted.fingerprint
    if mine is None:
        return None
    if not on_cuda(record):
        if (mine.device_name, mine.threads) == (theirs.device_name, theirs.threads):
            return None
        return (
            f"accepted on {theirs.device_name} with {theirs.threads} threads, this is {mine.device_name} with "
            f"{mine.threads}: their ratios are not comparable"
        )
    here, there = mine.host or "an unknown host", theirs.host or "an unknown host"
    return f"calls wait for the host, which was {there} when it was accepted and is {here}" if here != there else None


def _no_ratio(
    record: Record, entry: Entry, timing: Timing, old: Timing, now: Ratio | None, was: Ratio | None
) -> str | None:
    """Why two ratios cannot be held against each other."""
    if now is None or was is None:
        return f"fewer than {FEWEST} interleaved pairs {'now' if now is None else 'when it was accepted'}"
    elsewhere = _another_device(record, entry) if on_cuda(record) else None
    if elsewhere is None and not (on_cuda(record) and not is_host_bound(timing, old)):
        elsewhere = _another_host(record, entry)
    if elsewhere is not None:
        return elsewhere
    void = disturbed("regression.latency", timing)
    if void is not None or old.disturbed:
        return void.why if void is not None else _disturbed_then(old)
    if was.high - was.low > 2 * NOISY * was.value:
        told = f"{was.value:.3f}x, interval {was.low:.3f} to {was.high:.3f}"
        return f"the accepted ratio is too noisy: {told}; accept a calmer run"
    return None

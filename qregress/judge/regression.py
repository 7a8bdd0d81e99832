"""Checks against the accepted record. Without one they say why there is nothing to compare with: ``new``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import msgspec

from qregress import units
from qregress.frames import of_entry, prompts_of
from qregress.judge import manifest
from qregress.judge.noise import NOISY, latency_margin, margin, memory_margin, prompt_margin
from qregress.metrics import MetricError, require_same
from qregress.record import Check, Record, Scores
from qregress.stats import FEWEST, Ratio, ratio
from qregress.store.baseline import Baseline, Entry

#: Scores that mean something only beside the weights that gave them.
_LEARNED = ("lpips", "clip")


class History(msgspec.Struct, frozen=True):
    """What a record is compared with.

    ``entry``: what was accepted; ``missing``: why there is none. ``moved``: levels of 8 bits, root mean square, between
    each accepted reference image and today's; ``None`` where images are not kept. Called only where digests differ.
    """

    entry: Entry | None
    missing: str = ""
    moved: Callable[[], tuple[float, ...] | None] = lambda: None


def lpips(record: Record, history: History) -> Check | None:
    """Perceptual distance to the reference, mean and prompt by prompt."""
    if record.scores is None or not record.scores.lpips:
        return _gone("regression.lpips", history, lambda was: was.scores is not None and bool(was.scores.lpips))
    return _compared("regression.lpips", "lpips", record, history, lambda scores: scores.lpips)


def clip(record: Record, history: History) -> Check | None:
    """The paired drop of the CLIP score, in cosine; of a reference, its distance below a perfect score."""
    if record.scores is None or not record.scores.clip:
        return _gone("regression.clip", history, lambda was: was.scores is not None and bool(was.scores.clip))
    return _compared("regression.clip", "clip", record, history, _drops)


def latents(record: Record, history: History) -> Check | None:
    """Relative L2 of the final latents against the reference's: what no decoder and no rounding has hidden."""
    if record.scores is None or not record.scores.latents:
        return _gone("regression.latents", history, lambda was: was.scores is not None and bool(was.scores.latents))
    return _compared("regression.latents", "latents", record, history, lambda scores: scores.latents)


def motion(record: Record, history: History) -> Check | None:
    """Of a video: relative L2 of the differences of neighbouring frames against the reference's."""
    if record.scores is None or not record.scores.motion:
        return _gone("regression.motion", history, lambda was: was.scores is not None and bool(was.scores.motion))
    return _compared("regression.motion", "motion", record, history, lambda scores: scores.motion or ())


def memory(record: Record, history: History) -> Check | None:
    """Bytes allocated after the run; the worst is the peak."""
    name, entry = "regression.memory", history.entry
    if record.memory is None:
        return _gone(name, history, lambda was: was.memory is not None)
    if entry is None or entry.baseline.memory is None:
        return _new(name, history)
    now, was = record.memory, entry.baseline.memory
    limit, peak_limit = (value + memory_margin(value) for value in (was.static_bytes, was.peak_bytes))
    failed = [
        f"{what} {units.format_bytes(value)}, accepted {units.format_bytes(old)}, limit {units.format_bytes(bound)}"
        for what, value, old, bound in (
            ("static", now.static_bytes, was.static_bytes, limit),
            ("peak", now.peak_bytes, was.peak_bytes, peak_limit),
        )
        if value > bound
    ]
    change = now.static_bytes - was.static_bytes
    accepted = units.format_bytes(was.static_bytes)
    return Check(
        name=name,
        verdict="fail" if failed else "pass",
        value=now.static_bytes,
        worst=now.peak_bytes,
        limit=limit,
        worst_limit=peak_limit,
        basis=f"accepted {accepted} + {units.format_bytes(memory_margin(was.static_bytes))}",
        why="; ".join(failed) or f"{change:+d} bytes against the accepted {accepted}",
        better=not failed and change < -memory_margin(was.static_bytes),
    )


def latency(record: Record, history: History) -> Check | None:
    """The ratio to the reference of the same session against the accepted ratio; both were interleaved."""
    timing, name, entry = record.timing, "regression.latency", history.entry
    old = entry.accepted.timing if entry is not None else None
    if timing is None or not timing.reference_s:
        return _gone(name, history, lambda _: old is not None and bool(old.reference_s))
    now = ratio(timing.samples_s, timing.reference_s)
    if entry is None or old is None:
        return _new(name, history)
    was = ratio(old.samples_s, old.reference_s)
    void = _no_ratio(record, entry, now, was)
    if void is not None or now is None or was is None:
        return Check(name=name, verdict="void", value=now.value if now is not None else None, why=void or "no ratio")
    added = latency_margin(was)
    limit = was.value + added.value
    text = f"{now.value:.3f}x, interval {now.low:.3f} to {now.high:.3f}, limit {limit:.3f}x ({added.basis})"
    if not now.excludes(limit):
        return Check(
            name=name,
            verdict="void",
            value=now.value,
            limit=limit,
            basis=added.basis,
            why=f"too noisy: {text}",
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


def _no_ratio(record: Record, entry: Entry, now: Ratio | None, was: Ratio | None) -> str | None:
    """Why two ratios cannot be held against each other."""
    if now is None or was is None:
        return f"fewer than {FEWEST} interleaved pairs {'now' if now is None else 'when it was accepted'}"
    mine, theirs = record.fingerprint, entry.accepted.fingerprint
    if mine is not None and (mine.device_name, mine.threads) != (theirs.device_name, theirs.threads):
        return (
            f"accepted on {theirs.device_name} with {theirs.threads} threads, this is {mine.device_name} with "
            f"{mine.threads}: their ratios are not comparable"
        )
    if was.high - was.low > 2 * NOISY * was.value:
        told = f"{was.value:.3f}x, interval {was.low:.3f} to {was.high:.3f}"
        return f"the accepted ratio is too noisy: {told}; accept a calmer run"
    return None


def coverage(record: Record, history: History) -> Check | None:
    """The same modules in the same tensor classes, which name the kernels; other bytes are ``memory``'s business.

    Line by line, or by counts where a baseline has no lines yet.
    """
    name, entry = "regression.coverage", history.entry
    if not record.coverage:
        return _gone(name, history, lambda was: was.coverage is not None)
    now = manifest.summarize(record.coverage)
    if entry is None or entry.baseline.coverage is None or now is None:
        return _new(name, history)
    accepted = entry.baseline.manifest
    words = (
        manifest.differences(accepted, manifest.lines(record.coverage))
        if accepted
        else manifest.changes(entry.baseline.coverage, now)
    )
    return Check(
        name=name,
        verdict="fail" if words else "pass",
        value=float(len(words)),
        limit=0.0,
        basis="the accepted manifest",
        why="; ".join(words) or "modules and tensor classes as accepted",
    )


def drift(record: Record, history: History) -> Check | None:
    """Did the unquantized model itself move? Its pixels against the accepted ones, where they differ at all."""
    name, entry = "drift.reference", history.entry
    if entry is None:
        return _new(name, history)
    was = entry.baseline
    if record.images_sha256 is not None and record.images_sha256 == was.images_sha256:
        return Check(
            name=name, verdict="pass", value=0.0, limit=0.0, basis="equal bits", why="the accepted images, bit by bit"
        )
    if was.images and len(was.images) != len(record.images):
        why = f"the reference gave {len(record.images)} images, {len(was.images)} when it was accepted"
        return Check(name=name, verdict="fail", why=why)
    moved = history.moved()
    if moved is None:
        same = record.latents_sha256 == was.latents_sha256
        which = "its latents are the accepted ones, its images are not" if same else "its latents and images are others"
        return Check(
            name=name, verdict="void", why=f"{which}, and only digests are kept of a reference: how far cannot be said"
        )
    added = margin("pixels", 0.0, was.noise, prompts_of(record, range(len(moved)), len(moved)))
    mean, worst = statistics.fmean(moved), max(moved)
    bound = prompt_margin("pixels", 0.0, was.noise)
    failed = mean > added.value or worst > bound
    return Check(
        name=name,
        verdict="fail" if failed else "pass",
        value=mean,
        worst=worst,
        limit=added.value,
        worst_limit=bound,
        basis=added.basis,
        why=f"the unquantized images moved by {mean:.2f} levels of 8 bits in the mean and {worst:.2f} in the worst, "
        f"limits {added.value:.2f} and {bound:.2f} ({added.basis})",
    )


def _compared(
    name: str, score: str, record: Record, history: History, pick: Callable[[Scores], Sequence[float | None]]
) -> Check:
    """A score of each prompt, or frame of its video, against the accepted one of the same."""
    entry = history.entry
    if entry is None or entry.baseline.scores is None or record.scores is None:
        return _new(name, history)
    before, now = _finite(pick(entry.baseline.scores)), _finite(pick(record.scores))
    if len(before) != len(now):
        what = "prompts" if prompts_of(record, range(len(now)), len(now)) == len(now) else "frames"
        # The same prompts were asked for, or the record were not comparable.
        why = f"{len(now)} {what} were scored, {len(before)} when it was accepted"
        return Check(name=name, verdict="fail", why=why)
    if score in _LEARNED:
        try:
            _same_weights(score, record.scores, entry.baseline.scores)
        except MetricError as error:
            return Check(name=name, verdict="new", why=str(error))
    # Infinity from infinity is no rise, and one such prompt would take the whole mean's limit with it.
    known = [index for index, old in enumerate(before) if math.isfinite(old)]
    if not known:
        return Check(name=name, verdict="new", why="what was accepted is not finite for any prompt")
    mean_before, mean_now = (statistics.fmean(values[index] for index in known) for values in (before, now))
    added = margin(score, mean_before, entry.baseline.noise, prompts_of(record, known, len(now)))
    limit = mean_before + added.value
    at = max(known, key=lambda index: now[index] - before[index])
    bound = before[at] + prompt_margin(score, mean_before, entry.baseline.noise)
    failed = []
    if mean_now > limit:
        failed.append(f"mean {mean_now:.5f} over {limit:.5f} ({added.basis})")
    if now[at] > bound:
        which = of_entry(record, at, len(now))
        failed.append(f"{now[at]:.5f}, accepted {before[at]:.5f}, over {bound:.5f} for {which}")
    return Check(
        name=name,
        verdict="fail" if failed else "pass",
        value=mean_now,
        worst=now[at],
        limit=limit,
        worst_limit=bound,
        basis=added.basis,
        why="; ".join(failed) or f"mean {mean_now:.5f} within {limit:.5f} ({added.basis})",
        better=not failed and mean_now < mean_before - added.value,
    )


def _gone(name: str, history: History, had: Callable[[Baseline], bool]) -> Check | None:
    """What was measured when it was accepted and is not any more would else be judged by nobody."""
    if history.entry is None or not had(history.entry.baseline):
        return None
    return Check(
        name=name,
        verdict="fail",
        why="was measured when it was accepted, and is not now; if that is meant, accept this run",
    )


def _new(name: str, history: History) -> Check:
    return Check(name=name, verdict="new", why=history.missing or "the accepted record has no such figure")


def _drops(scores: Scores) -> tuple[float, ...]:
    base = scores.clip_reference or (100.0,) * len(scores.clip)
    return tuple((was - now) / 100 for now, was in zip(scores.clip, base, strict=True))


def _finite(values: Sequence[float | None]) -> tuple[float, ...]:
    """Infinity for what was not: it is beyond every limit, where a comparison with NaN is never true."""
    return tuple(math.inf if value is None or math.isnan(value) else value for value in values)


def _same_weights(score: str, mine: Scores, other: Scores) -> None:
    """LPIPS's weights are named first, CLIP's last."""
    place = -1 if score == "clip" else 0
    if mine.weights and other.weights:
        require_same(mine.weights[place], other.weights[place])


#: In the order in which they are shown.
REGRESSIONS: tuple[Callable[[Record, History], Check | None], ...] = (
    lpips,
    clip,
    latents,
    motion,
    memory,
    latency,
    coverage,
)

"""Checks against the accepted record. Without one they say why there is nothing to compare with: ``new``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from qregress import units
from qregress.frames import of_entry, prompts_of
from qregress.judge import manifest, timing_regression
from qregress.judge.history import History, gone, new
from qregress.judge.noise import margin, memory_margin, prompt_margin
from qregress.metrics import MetricError, require_same
from qregress.record import Check, Record, Scores

#: Scores that mean something only beside the weights that gave them.
_LEARNED = ("lpips", "clip")


def lpips(record: Record, history: History) -> Check | None:
    """Perceptual distance to the reference, mean and prompt by prompt."""
    if record.scores is None or not record.scores.lpips:
        return gone("regression.lpips", history, lambda was: was.scores is not None and bool(was.scores.lpips))
    return _compared("regression.lpips", "lpips", record, history, lambda scores: scores.lpips)


def clip(record: Record, history: History) -> Check | None:
    """The paired drop of the CLIP score, in cosine; of a reference, its distance below a perfect score."""
    if record.scores is None or not record.scores.clip:
        return gone("regression.clip", history, lambda was: was.scores is not None and bool(was.scores.clip))
    return _compared("regression.clip", "clip", record, history, _drops)


def latents(record: Record, history: History) -> Check | None:
    """Relative L2 of the final latents against the reference's: what no decoder and no rounding has hidden."""
    if record.scores is None or not record.scores.latents:
        return gone("regression.latents", history, lambda was: was.scores is not None and bool(was.scores.latents))
    return _compared("regression.latents", "latents", record, history, lambda scores: scores.latents)


def motion(record: Record, history: History) -> Check | None:
    """Of a video: relative L2 of the differences of neighbouring frames against the reference's."""
    if record.scores is None or not record.scores.motion:
        return gone("regression.motion", history, lambda was: was.scores is not None and bool(was.scores.motion))
    return _compared("regression.motion", "motion", record, history, lambda scores: scores.motion or ())


def memory(record: Record, history: History) -> Check | None:
    """Bytes allocated after the run; the worst is the peak."""
    name, entry = "regression.memory", history.entry
    if record.memory is None:
        return gone(name, history, lambda was: was.memory is not None)
    if entry is None or entry.baseline.memory is None:
        return new(name, history)
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


def coverage(record: Record, history: History) -> Check | None:
    """The same modules in the same tensor classes, which name the kernels; other bytes are ``memory``'s business.

    Line by line, or by counts where a baseline has no lines yet.
    """
    name, entry = "regression.coverage", history.entry
    if not record.coverage:
        return gone(name, history, lambda was: was.coverage is not None)
    now = manifest.summarize(record.coverage)
    if entry is None or entry.baseline.coverage is None or now is None:
        return new(name, history)
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
        return new(name, history)
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
        return new(name, history)
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
    timing_regression.latency,
    timing_regression.busy,
    coverage,
)

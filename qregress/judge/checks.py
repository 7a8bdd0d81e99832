"""One function per check: a record, its reference and its limits in, a ``Check`` out, ``None`` where nothing is asked.

Sanity, coverage and budgets need no baseline; what does is in ``regression.py``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

from qregress import units
from qregress.frames import of_entry, where
from qregress.judge import kernels, proof, regression, timing
from qregress.judge.budgets import WORST_FACTOR, Limit
from qregress.judge.history import History
from qregress.matrix import REFERENCE
from qregress.metrics import MetricError, require_same
from qregress.record import Check, Problem, Record

Limits = dict[str, Limit]


class Subject(msgspec.Struct, frozen=True):
    """What a check sees: the cell's record, the reference's, the limits, what was accepted."""

    record: Record
    reference: Record | None
    limits: Limits
    history: History | None = None


def _numbers(values: Sequence[float | None]) -> list[float]:
    """Infinity for what was not finite: it is beyond every limit."""
    return [float("inf") if value is None else value for value in values]


def _mean_and_worst(
    name: str, values: Sequence[float], limits: tuple[Limit | None, Limit | None], of: str, record: Record
) -> Check | None:
    """Both halves; a worst entry without a limit of its own has one from the mean's. ``None`` without any limit."""
    limit, worst_limit = limits
    if limit is None:
        if worst_limit is None:
            return None
        limit = Limit(worst_limit.value, relative=False, basis=f"{worst_limit.basis}, of the worst prompt")
    values = [math.inf if math.isnan(value) else value for value in values]  # NaN is beyond every limit
    mean, worst = statistics.fmean(values), max(values)
    bound = worst_limit.value if worst_limit is not None else limit.value * WORST_FACTOR
    basis = worst_limit.basis if worst_limit is not None else f"{WORST_FACTOR:g} x the mean's limit"
    where = of_entry(record, list(values).index(worst), len(values))
    failed = [
        text
        for bad, text in (
            (mean > limit.value, f"mean {of} {mean:.4f} over {limit.value:g} ({limit.basis})"),
            (worst > bound, f"worst {of} {worst:.4f} over {bound:g} ({basis}), {where}"),
        )
        if bad
    ]
    return Check(
        name=name,
        verdict="fail" if failed else "pass",
        value=mean,
        worst=worst,
        limit=limit.value,
        worst_limit=bound,
        basis=limit.basis,
        why="; ".join(failed) or f"mean {mean:.4f} and worst {worst:.4f} within {limit.value:g} and {bound:g}",
    )


def sanity(subject: Subject) -> Check | None:
    """NaN, black, flat or noise: a failure whatever the scores say. Of random weights, NaN."""
    scores = subject.record.scores
    if scores is None:
        return None
    found = list(scores.problems)
    problems = [_told(problem) for problem in found]
    if subject.reference is not None and subject.reference.scores is not None:
        # What is wrong with both is no distance between them: a broken reference would excuse every cell.
        found += subject.reference.scores.problems
        problems += [f"its reference, {_told(problem)}" for problem in subject.reference.scores.problems]
    # Random weights may draw black, flat or noise.
    trained, count = scores.note is None, len(subject.record.images)
    return Check(
        name="quality.sanity",
        verdict="fail" if problems else "pass",
        value=float(len({(problem.prompt, problem.frame) for problem in found})),
        limit=0.0,
        basis=f"no image may be NaN{', black, flat or noise' if trained else ''}",
        why="; ".join(problems) or f"{count} images are {'images' if trained else 'finite, and so are their latents'}",
    )


def _told(problem: Problem) -> str:
    return f"{where(problem.prompt, problem.frame)}: {problem.kind}, {problem.detail}"


def lpips(subject: Subject) -> Check | None:
    """Perceptual distance to the reference images."""
    scores = subject.record.scores
    if scores is None or not scores.lpips:
        return None
    limits = subject.limits.get("lpips"), subject.limits.get("lpips_worst")
    return _mean_and_worst("quality.lpips", scores.lpips, limits, "LPIPS", subject.record)


def clip_drop(subject: Subject) -> Check | None:
    """How far the CLIP score fell against the reference image of the same prompt, in cosine."""
    scores = subject.record.scores
    limits = subject.limits.get("clip_drop"), subject.limits.get("clip_drop_worst")
    if scores is None or not scores.clip or not scores.clip_reference or limits == (None, None):
        return None
    try:
        _same_weights(subject)
    except MetricError as error:
        return Check(name="quality.clip_drop", verdict="void", why=str(error))
    drops = [(was - now) / 100 for now, was in zip(scores.clip, scores.clip_reference, strict=True)]
    return _mean_and_worst("quality.clip_drop", drops, limits, "CLIP drop", subject.record)


def _same_weights(subject: Subject) -> None:
    """Raise ``MetricError`` where the cell and its reference were scored with different weights of one name."""
    mine = subject.record.scores.weights if subject.record.scores is not None else ()
    other = subject.reference.scores if subject.reference is not None else None
    for one in mine:
        for two in other.weights if other is not None else ():
            if one.name == two.name:
                require_same(one, two)


def reference_drift(subject: Subject) -> Check | None:
    """Of a cell: its reference gave other bits beside it than alone. Of a reference: it moved since it was accepted."""
    record = subject.record
    if record.reference_repeatable is False:
        why = "the reference gave other bits beside this cell than alone: nothing compared with it can be trusted"
        return Check(name="drift.reference", verdict="void", basis="equal bits", why=why)
    if subject.history is None or record.setting != REFERENCE or not record.images:
        return None
    return regression.drift(record, subject.history)


def latents(subject: Subject) -> Check | None:
    """Relative L2 of the final latents."""
    scores, limit = subject.record.scores, subject.limits.get("latents")
    if scores is None or not scores.latents or limit is None:
        return None
    return _mean_and_worst("quality.latents", _numbers(scores.latents), (limit, None), "relative L2", subject.record)


def motion(subject: Subject) -> Check | None:
    """Of a video: relative L2 of the differences of neighbouring frames."""
    scores = subject.record.scores
    if scores is None or not scores.motion:
        return None
    limits = subject.limits.get("motion"), subject.limits.get("motion_worst")
    return _mean_and_worst("quality.motion", scores.motion, limits, "motion distance", subject.record)


def coverage(subject: Subject) -> Check | None:
    """Every module as the setting asks."""
    return proof.coverage(subject.record)


def fidelity(subject: Subject) -> Check | None:
    """Every kernel right."""
    return kernels.fidelity(subject.record)


def roundtrip(subject: Subject) -> Check | None:
    """The same images after saving and loading."""
    return proof.roundtrip(subject.record)


def disk(subject: Subject) -> Check | None:
    """Bytes of what was saved."""
    limit = subject.limits.get("disk")
    found = proof.disk(subject.record, subject.reference, limit)
    if found is None or limit is None:
        return None
    return _elsewhere(found.name, limit, found.value, subject.record) or found


def _elsewhere(name: str, limit: Limit, value: float | None, record: Record) -> Check | None:
    """Void, where an absolute limit was set for other devices than this one."""
    here = record.fingerprint.device_class if record.fingerprint is not None else ""
    if limit.device is None or limit.relative or fnmatchcase(here, limit.device):
        return None
    why = f"{limit.basis} binds on devices like '{limit.device}', and this is {here or 'not known'}"
    return Check(name=name, verdict="void", value=value, basis=limit.basis, why=why)


def _memory(name: str, key: str, pick: Callable[[Record], int | None], subject: Subject) -> Check | None:
    limit = subject.limits.get(key)
    value = pick(subject.record)
    if limit is None or value is None or subject.record.setting == REFERENCE:
        return None
    bound = limit.value
    elsewhere = _elsewhere(name, limit, value, subject.record)
    if elsewhere is not None:
        return elsewhere
    if limit.relative:
        base = pick(subject.reference) if subject.reference is not None else None
        if base is None:
            return Check(
                name=name, verdict="void", value=value, basis=limit.basis, why="the reference was not measured"
            )
        bound = limit.value * base
    text = f"{units.format_bytes(value)}, limit {units.format_bytes(round(bound))} ({limit.basis})"
    return Check(
        name=name, verdict="fail" if value > bound else "pass", value=value, limit=bound, basis=limit.basis, why=text
    )


def memory_static(subject: Subject) -> Check | None:
    """Bytes allocated after the run: what published tables call memory."""
    return _memory("memory.static", "memory", lambda r: r.memory.static_bytes if r.memory else None, subject)


def memory_peak(subject: Subject) -> Check | None:
    """The most bytes allocated while running."""
    return _memory("memory.peak", "memory_peak", lambda r: r.memory.peak_bytes if r.memory else None, subject)


def latency(subject: Subject) -> Check | None:
    """Seconds per pipeline call."""
    return timing.latency(subject.record, subject.limits.get("latency"), _elsewhere)


def busy(subject: Subject) -> Check | None:
    """Seconds in which a CUDA device was busy per call."""
    return timing.busy(subject.record, subject.limits.get("busy"), _elsewhere)


#: In the order in which they are shown.
CHECKS: tuple[Callable[[Subject], Check | None], ...] = (
    sanity,
    reference_drift,
    lpips,
    clip_drop,
    latents,
    motion,
    coverage,
    fidelity,
    roundtrip,
    disk,
    memory_static,
    memory_peak,
    latency,
    busy,
)


#: All names, for what a configuration may say of them.
CHECK_NAMES = (
    *("quality.sanity", "quality.lpips", "quality.clip_drop", "quality.latents", "quality.motion"),
    *(
        "coverage.manifest",
        "kernel.fidelity",
        "roundtrip.images",
        "roundtrip.disk",
        "memory.static",
        "memory.peak",
        "latency.ratio",
        "latency.budget",
        "latency.busy",
        "drift.reference",
    ),
    *(f"regression.{check.__name__}" for check in regression.REGRESSIONS),
)


def run(subject: Subject) -> Iterator[Check]:
    """All checks that have something to say of this cell."""
    for check in CHECKS:
        found = check(subject)
        if found is not None:
            yield found
    if subject.history is None:
        return
    for compare in regression.REGRESSIONS:
        found = compare(subject.record, subject.history)
        if found is not None:
            yield found

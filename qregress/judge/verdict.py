"""The verdict of a cell, and its line in ``run.json``."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from qregress import units
from qregress.judge import checks, waivers
from qregress.judge.blame import told
from qregress.judge.budgets import Limit
from qregress.judge.history import History
from qregress.judge.kernels import never_called
from qregress.judge.manifest import summarize
from qregress.judge.noise import HOST_BOUND
from qregress.judge.waivers import Waiver
from qregress.matrix import REFERENCE
from qregress.record import CellResult, Check, LatencySummary, Record, Timing, Verdict
from qregress.stats import low_quantile, ratio

#: From worst to best: a cell is as bad as its worst check.
_ORDER: tuple[Verdict, ...] = ("crashed", "fail", "waived", "void", "not-run", "new", "pass")


def judge(
    record: Record,
    reference: Record | None,
    limits: dict[str, Limit],
    *,
    history: History | None = None,
    waived: Sequence[Waiver] = (),
    today: dt.date | None = None,
) -> CellResult:
    """Compare one record with its limits and with what was accepted. Needs no device.

    Without a ``history`` nothing is compared with the past, not even as ``new``. ``today`` decides which waivers hold.
    """
    day = today if today is not None else dt.datetime.now(dt.UTC).date()
    found: tuple[Check, ...] = ()
    notes: list[str] = []
    if record.status == "ran":
        subject = checks.Subject(record, reference, limits, history)
        found = waivers.apply(checks.run(subject), record.id, waived, day)
        notes = [*waivers.notes(found, record.id, waived, day), *_bits(record, history)]
    return CellResult(
        id=record.id,
        pipeline=record.pipeline,
        source=record.source,
        setting=record.setting,
        workload=record.workload,
        status=record.status,
        verdict=_worst(record, found),
        message=record.message,
        log=record.log,
        checks=found,
        memory=record.memory,
        memory_ratio=_memory_ratio(record, reference),
        latency=_latency(record),
        coverage=summarize(record.coverage),
        scores=_scores(record),
        notes=(*_notes(record), *_unlimited(record, limits, found), *notes),
        weights=record.scores.weights if record.scores is not None else (),
        images=tuple(f"cells/{record.id}/{name}" for name in record.images),
        sheet=f"cells/{record.id}/sheet.png" if record.draws else None,
        seconds=record.seconds,
    )


def _worst(record: Record, found: tuple[Check, ...]) -> Verdict:
    if record.status != "ran":
        return record.status
    verdicts = {check.verdict for check in found} or {"pass"}
    return min(verdicts, key=_ORDER.index)


def _memory_ratio(record: Record, reference: Record | None) -> float | None:
    if record.memory is None or reference is None or reference.memory is None:
        return None
    return record.memory.static_bytes / reference.memory.static_bytes


def _latency(record: Record) -> LatencySummary | None:
    timing = record.timing
    if timing is None or not timing.samples_s:
        return None
    found = ratio(timing.samples_s, timing.reference_s) if timing.reference_s else None
    return LatencySummary(
        median_s=statistics.median(timing.samples_s),
        samples_s=timing.samples_s,
        reference_s=timing.reference_s,
        ratio=found.value if found else None,
        ratio_low=found.low if found else None,
        ratio_high=found.high if found else None,
        busy_s=min(timing.busy_s) if timing.busy_s else UNSET,
        busy_steps=timing.busy_steps,
        busy_ratio=_or_unset(timing.busy_ratio),
        host_bound=_or_unset(timing.host_bound),
        stages=timing.stages,
    )


def _or_unset(value: float | None) -> float | UnsetType:
    return UNSET if value is None else value


def _scores(record: Record) -> dict[str, float | None]:
    """Means over prompts, for tables; worst values are in the checks."""
    scores = record.scores
    if scores is None:
        return {}
    found: dict[str, float | None] = {}
    if scores.lpips:
        found |= {"lpips": statistics.fmean(scores.lpips), "lpips_worst": max(scores.lpips)}
    if scores.clip:
        found["clip"] = statistics.fmean(scores.clip)
    if scores.clip and scores.clip_reference:
        found["clip_drop"] = (statistics.fmean(scores.clip_reference) - statistics.fmean(scores.clip)) / 100
    if scores.ssim:
        found["ssim"] = statistics.fmean(scores.ssim)
    finite = [value for value in scores.psnr_db if value is not None]
    if scores.psnr_db:
        found["psnr_db"] = statistics.fmean(finite) if finite else None
    known = [value for value in scores.latents if value is not None]
    if scores.latents:
        found["latents"] = statistics.fmean(known) if len(known) == len(scores.latents) else None
    if scores.motion:
        found["motion"] = statistics.fmean(scores.motion)
    return found


def _bits(record: Record, history: History | None) -> list[str]:
    """Other bits than the accepted ones with the same libraries: something changed that no version number tells."""
    entry = history.entry if history is not None else None
    if entry is None or record.repeatable is False or record.latents_sha256 == entry.baseline.latents_sha256:
        return []
    here = record.fingerprint.packages if record.fingerprint is not None else {}
    if here != entry.accepted.fingerprint.packages:
        return []
    return ["latents are not the accepted ones to the bit, though no library has another version"]


def _unlimited(record: Record, limits: dict[str, Limit], found: Sequence[Check]) -> list[str]:
    """What was measured and judged by nothing: a gate without budgets or baselines is green whatever happens."""
    if record.status != "ran" or record.setting == REFERENCE:
        return []
    measured = {
        "lpips": record.scores is not None and bool(record.scores.lpips),
        "motion": record.scores is not None and bool(record.scores.motion),
        # All that tells of images where weights are random.
        "latents": record.scores is not None and record.scores.note is not None and bool(record.scores.latents),
        "memory": record.memory is not None,
        "latency": record.timing is not None,
    }
    compared = {check.name.removeprefix("regression.") for check in found if check.limit is not None}
    judged = compared.union(limits)
    free = [name for name, there in measured.items() if there and not {name, f"{name}_worst"}.intersection(judged)]
    return [f"measured but not judged, as no budget is set: {', '.join(free)}"] if free else []


def _notes(record: Record) -> tuple[str, ...]:
    notes = []
    if record.repeatable is False:
        notes.append("not repeatable: the same prompt and seed gave other images in the same process")
    if record.scores is not None and record.scores.note:
        notes.append(record.scores.note)
    if record.beside and record.beside.lpips:
        mean, worst = statistics.fmean(record.beside.lpips), max(record.beside.lpips)
        notes.append(f"against the FP16 reference, which does not gate it: LPIPS mean {mean:.4f}, worst {worst:.4f}")
    if record.asked is not None and record.asked.setting.get("fuse_qkv"):
        notes += _left_by_fusing(record)
    notes += never_called(record)
    notes += _waiting(record.timing)
    if record.timing is not None and record.timing.unwatched:
        notes.append(f"not watched while it was timed: {', '.join(record.timing.unwatched)}")
    if record.blame is not UNSET:
        notes.append(told(record.blame))
    return tuple(notes)


def _waiting(timing: Timing | None) -> list[str]:
    """Where wall time is the host's, it says little of a GPU's kernels."""
    share = timing.host_bound if timing is not None else None
    if timing is None or not timing.busy_s or share is None or share <= HOST_BOUND:
        return []
    beside = f", {timing.busy_ratio:.3f}x its reference" if timing.busy_ratio is not None else ""
    least = units.format_seconds(min(timing.busy_s))
    what = f"text encoding and {timing.busy_steps} steps" if timing.busy_steps else "a call"
    overhead = f" (a kernel's launch: {units.format_seconds(low_quantile(timing.launch_s))})" if timing.launch_s else ""
    return [f"the device waits for its host{overhead} in {share:.0%} of {what}; it is busy for {least}{beside}"]


def _left_by_fusing(record: Record) -> list[str]:
    """Joining projections leaves the old ones in memory, quantized and never called."""
    notes = []
    for component, manifest in record.coverage.items():
        idle = [module for module in manifest.modules if module.name in manifest.idle]
        if idle:
            size = units.format_bytes(sum(module.bytes for module in idle))
            left = f"{len(idle)} quantized modules that no call uses stay in memory, {size}"
            notes.append(f"{component}: the projections that were joined: {left}: {idle[0].name}, …")
    return notes

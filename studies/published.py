"""The published tables, with what a run of studies/published.toml measured beside them.

python studies/published.py runs/published > study.md

Takes a finished run's folder, or an archive of it. A row that was not run is left empty.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from msgspec import UNSET

from qregress.record import Record, Timing
from qregress.stats import Ratio, low_quantile, ratio
from qregress.store.finished import FinishedRun

GIB = 2**30
#: How far static memory may be from the published figure before a row counts as one that disagrees.
_SHARE, _ABSOLUTE = 0.015, 0.10


class Row(NamedTuple):
    """A published figure: memory in GiB and seconds a call, of a cell of the study."""

    cell: str
    memory: float
    seconds: float


#: "Memory-efficient Diffusion Transformers with Quanto and Diffusers", 2024: one H100 of 80 GB, CUDA 12.2, torch 2.4.1.
PUBLISHED = {
    "PixArt-Sigma": (
        Row("pixart-sigma/reference/bs1", 12.086, 1.200),
        Row("pixart-sigma/reference/bs4", 12.087, 4.482),
        Row("pixart-sigma/float8/bs1", 11.547, 1.540),
        Row("pixart-sigma/float8/bs4", 11.548, 5.109),
        Row("pixart-sigma/float8+te/bs1", 5.363, 1.601),
        Row("pixart-sigma/float8+te/bs4", 5.364, 5.141),
        Row("pixart-sigma/int8+te/bs1", 5.363, 1.538),
        Row("pixart-sigma/int8+te-bf16/bs1", 5.364, 1.454),
        Row("pixart-sigma/float8+te-bf16/bs1", 5.363, 1.495),
        Row("pixart-sigma/int8+te-fused/bs1", 5.536, 1.504),
        Row("pixart-sigma/int8+te/bs4", 5.365, 5.129),
        Row("pixart-sigma/int8+te-fused/bs4", 5.538, 4.989),
        Row("pixart-sigma/int4/bs1", 9.380, 7.431),
        Row("pixart-sigma/int4+te/bs1", 3.058, 7.604),
    ),
    "Stable Diffusion 3": (
        Row("sd3/reference/bs1", 16.403, 2.118),
        Row("sd3/float8+te/bs1", 8.200, 2.858),
        Row("sd3/float8+te3/bs1", 8.294, 2.781),
        Row("sd3/float8+te12/bs1", 14.384, 2.833),
        Row("sd3/float8+te2/bs1", 14.475, 2.818),
        Row("sd3/float8+te1/bs1", 14.384, 2.730),
        Row("sd3/float8+te23/bs1", 8.325, 2.875),
        Row("sd3/float8+te13/bs1", 8.204, 2.789),
    ),
}
#: Studied without figures.
BESIDE = {
    "AuraFlow": tuple(
        Row(f"aura-flow/{setting}/bs1-10", 0.0, 0.0) for setting in ("reference", "float8", "float8+te", "int8+te")
    )
}
_TITLES = (
    *("cell", "published GiB", "GiB", "difference", "published s", "s", "difference"),
    *("published, x ref", "x ref", "difference", "busy, x ref", "step, x ref", "host-bound", "launch, µs"),
)


def main(path: str) -> None:
    """Print the document."""
    with FinishedRun(Path(path)) as run:
        records = {row.cell: run.record(row.cell) for rows in (PUBLISHED | BESIDE).values() for row in rows}
        found = {cell: record for cell, record in records.items() if record is not None and _is_random(record)}
        if not found:
            sys.exit(f"{path}: holds no cell of the study, with random weights")
        print(_where(list(found.values())))
        for title, rows in (PUBLISHED | BESIDE).items():
            present = [row for row in rows if row.cell in found]
            if not present:
                print(f"\n{title} was not run.")
                continue
            print(f"\n## {title}\n")
            references = {row.cell.split("/")[2]: row for row in rows if "/reference/" in row.cell}
            print(f"| {' | '.join(_TITLES)} |\n|{'---|' * len(_TITLES)}")
            for row in rows:
                print(_line(row, found.get(row.cell), references[row.cell.split("/")[2]].seconds))
            print(f"\n{len(present)} cells, which took {sum(found[row.cell].seconds for row in present):.0f} s.")
            for row in present:
                for line in _bytes(row, found[row.cell]):
                    print(line)
            for line in _kernels(present, found, references):
                print(line)
            for line in _steadiness(present, found):
                print(line)
        print("\n## What the study says of the order of things\n")
        for line in _order(found):
            print(line)


def _is_random(record: Record) -> bool:
    """Of the full-size architectures; pocket pipelines have the same names."""
    return isinstance(record.source, str) and record.source.startswith("random:")


def _where(records: list[Record]) -> str:
    """What they ran on; ends the program where that is not one machine with one set of libraries."""
    prints = [record.fingerprint for record in records if record.fingerprint is not None]
    seen = {"": {each.device_name for each in prints}} | {
        name: {each.packages[name] for each in prints if name in each.packages} for name in _LIBRARIES
    }
    if any(len(values) != 1 for values in seen.values()):
        sys.exit(f"cells of more than one machine or version: {seen}")
    told = ", ".join(f"{name} {version}".strip() for name, (version,) in seen.items())
    return f"One {told}. Published: one H100 of 80 GB, CUDA 12.2, torch 2.4.1."


_LIBRARIES = ("torch", "diffusers", "transformers", "optimum-quanto", "nvidia-driver")


def _line(row: Row, record: Record | None, reference: float) -> str:
    """Published and measured side by side; a dash for what is not there."""
    static = _static(record) if record is not None else None
    timing = record.timing if record is not None else None
    seconds = low_quantile(timing.samples_s) if timing is not None else None
    found = _ratio(timing)
    published = row.seconds / reference if reference and "/reference/" not in row.cell else None
    first, shown, change = _beside(published, found.value if found is not None else None, ".2f")
    if found is not None:
        shown += f" [{found.low:.2f}, {found.high:.2f}]"
    cells = [
        row.cell,
        *_beside(row.memory or None, static, ".3f"),
        *_beside(row.seconds or None, seconds, ".3f"),
        *(first, shown, change),
        *_by_device(timing),
    ]
    return f"| {' | '.join(cells)} |"


def _by_device(timing: Timing | None) -> tuple[str, ...]:
    """Its busy time and that of a denoising step beside the reference's, and its share of waiting for the host.

    And how fast that was meanwhile: what it took to launch a kernel.
    """
    if timing is None:
        return ("-",) * 4
    stages, other = timing.stages, timing.reference_stages
    step = stages.step_s / other.step_s if stages and other else None
    launch = 1e6 * low_quantile(timing.launch_s) if timing.launch_s else None
    beside = _number(timing.busy_ratio, ".2f"), _number(step, ".2f"), _number(timing.host_bound, ".0%")
    return *beside, _number(launch, ".1f")


def _beside(published: float | None, measured: float | None, form: str) -> tuple[str, str, str]:
    """Both, and by how much of the published one they differ."""
    change = f"{measured / published - 1:+.1%}" if published and measured else "-"
    return _number(published, form), _number(measured, form), change


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else "-"


def _static(record: Record) -> float | None:
    return record.memory.static_bytes / GIB if record.memory is not None else None


def _ratio(timing: Timing | None) -> Ratio | None:
    """To the reference, of calls that were made in turn, as a latency verdict has it."""
    return ratio(timing.samples_s, timing.reference_s) if timing is not None and timing.reference_s else None


def _bytes(row: Row, record: Record) -> list[str]:
    """Of a row whose memory disagrees: what its bytes are, by component and weight type, from the manifest."""
    static = _static(record)
    if record.memory is None or static is None or not row.memory or agrees(static, row.memory):
        return []
    lines = [f"\n`{row.cell}` is {static - row.memory:+.3f} GiB off. What it stores:\n"]
    for component, nbytes in record.memory.components.items():
        manifest = record.coverage.get(component)
        kinds: Counter[str] = Counter()
        for module in manifest.modules if manifest is not None else ():
            kinds[module.found or module.dtype] += module.bytes
        told = ", ".join(f"{kind} {size / GIB:.3f}" for kind, size in kinds.most_common())
        lines.append(f"- {component} {nbytes / GIB:.3f} GiB" + (f": {told}" if told else ""))
    rest = record.memory.static_bytes - record.memory.storage_bytes
    lines.append(f"- beside what components store {rest / GIB:.3f} GiB")
    return lines


def agrees(static: float, published: float) -> bool:
    """Static memory and a published figure, both in GiB."""
    return abs(static - published) <= max(_SHARE * published, _ABSOLUTE)


def _kernels(rows: list[Row], found: dict[str, Record], references: dict[str, Row]) -> list[str]:
    """Of rows that are slower or faster beside their reference than published: whose kernels they run."""
    lines = []
    for row in rows:
        reference, record = references[row.cell.split("/")[2]].seconds, found[row.cell]
        timing = record.timing
        seen = _ratio(timing)
        if timing is None or seen is None or not reference:
            continue
        published = row.seconds / reference
        if seen.low <= published * (1 + _SLOWER) and seen.high >= published * (1 - _SLOWER):
            continue
        classes = Counter(
            module.tensor for manifest in record.coverage.values() for module in manifest.modules if module.found
        )
        told = ", ".join(f"{count} layers {name}" for name, count in classes.most_common())
        stages, other = timing.stages, timing.reference_stages
        if stages and other:
            told += f"; a step takes {stages.step_s * 1e3:.0f} ms, the reference's {other.step_s * 1e3:.0f}"
        waits = [part for part in (timing.host_bound, timing.reference_host_bound) if part is not None]
        if len(waits) > 1:
            told += (
                f"; the device waits for its host for {waits[0]:.0%} of {_part(timing)}, the reference's {waits[1]:.0%}"
            )
        lines.append(f"- `{row.cell}`: {published:.2f} x published, {seen.value:.2f} x here; {told}")
    return (
        ["\nTimes beside the reference that are more than 10 % off, by their whole interval:\n", *lines]
        if lines
        else []
    )


def _steadiness(rows: list[Row], found: dict[str, Record]) -> list[str]:
    """By how much the device's busy time of one and the same thing differs, of references beside all their cells."""
    lines = []
    for cell in (row.cell for row in rows if "/reference/" in row.cell):
        timings = _beside_references(found, cell)
        calls = [call for each in timings for call in (each.reference_busy_s or each.busy_s or ())]
        if calls:
            told = f"{min(calls):.3f} to {max(calls):.3f} s in {_part(timings[0])}, {_spread(calls):.1%} apart"
            lines.append(f"\n`{cell}`, in {len(calls)} profiled calls, keeps the device busy for {told}.")
    return lines


#: How far a latency ratio may be from the published one before a row counts as one that disagrees.
_SLOWER = 0.10


def _order(found: dict[str, Record]) -> list[str]:
    """The study's findings on order, each with its figures."""
    memory = {cell: static for cell, record in found.items() if (static := _static(record)) is not None}
    lines = []
    for at in ("pixart-sigma/{}/bs1", "pixart-sigma/{}/bs4", "aura-flow/{}/bs1-10"):
        lines += _saves_most(memory, at)
        lines += _faster(found, "int8 is faster than float8", at.format("int8+te"), at.format("float8+te"))
    for kind in ("int8", "float8"):
        fp16, bf16 = (f"pixart-sigma/{kind}+te{suffix}/bs1" for suffix in ("", "-bf16"))
        lines += _faster(found, "bf16 is a little faster than fp16", bf16, fp16)
    for workload in ("bs1", "bs4"):
        apart, fused = (f"pixart-sigma/int8+te{suffix}/{workload}" for suffix in ("", "-fused"))
        lines += _faster(found, "fused projections are faster", fused, apart)
        if {apart, fused} <= memory.keys():
            figures = f"{apart} {memory[apart]:.3f} GiB, {fused} {memory[fused]:.3f} GiB"
            lines.append(_stated("fused projections take more memory", memory[fused] > memory[apart], figures))
    for int4, other in (("int4", "float8"), ("int4+te", "float8+te")):
        lines += _faster(found, "int4 is slowest", f"pixart-sigma/{other}/bs1", f"pixart-sigma/{int4}/bs1")
    return lines


def _saves_most(memory: dict[str, float], at: str) -> list[str]:
    plain, denoiser, both = (at.format(name) for name in ("reference", "float8", "float8+te"))
    if not {plain, denoiser, both} <= memory.keys():
        return []
    first, then = memory[plain] - memory[denoiser], memory[denoiser] - memory[both]
    figures = f"{both}: denoiser {first:.3f} GiB, text encoder {then:.3f} GiB"
    return [_stated("the text encoder saves most", then > first, figures)]


def _faster(found: dict[str, Record], text: str, faster: str, slower: str) -> list[str]:
    """By the clock, and by what the device did: at batch 1 it waits for its host, whose pace changes.

    Cells were not run in turn with each other, but each with its reference: their ratios to that are compared, and are
    told apart where their intervals are further apart than what references took beside one cell and another; what a
    device was busy for, where all profiled calls of one are below all of the other's by more than references' differ.
    """
    timings = [found[cell].timing for cell in (faster, slower) if cell in found]
    one, two = timings if len(timings) == 2 else (None, None)
    clock = _ratio(one), _ratio(two)
    if one is None or two is None or clock[0] is None or clock[1] is None:
        return []
    apart = 1 + _spread(
        [low_quantile(each.reference_s) for each in _beside_references(found, faster) if each.reference_s]
    )
    by_clock = _told(clock[0].high * apart < clock[1].low, clock[1].high * apart < clock[0].low)
    figures = f"{by_clock} by the clock: {faster} {clock[0].value:.3f} x its reference, {slower} {clock[1].value:.3f} x"
    if one.busy_s and two.busy_s:
        calls = [call for each in _beside_references(found, faster) for call in each.reference_busy_s or ()]
        margin = 1 + _spread(calls)
        by_device = _told(max(one.busy_s) * margin < min(two.busy_s), max(two.busy_s) * margin < min(one.busy_s))
        busy = min(one.busy_s), min(two.busy_s)
        figures += f"; {by_device} by the device: busy for {busy[0]:.3f} s and {busy[1]:.3f} s in {_part(one)}"
    return [f"- {text}: {figures}."]


def _part(timing: Timing) -> str:
    """Of which part of a call busy time is told."""
    if timing.busy_steps is UNSET:
        return "a call"
    if timing.stages is not UNSET and timing.busy_steps < timing.stages.steps:
        return f"the first {timing.busy_steps} steps"
    return "all steps"


def _told(faster: bool, slower: bool) -> str:
    return "**holds**" if faster else "**does not hold**" if slower else "not told apart"


def _beside_references(found: dict[str, Record], cell: str) -> list[Timing]:
    """Of all cells that have their reference with a cell in common."""
    pipeline, _, workload = cell.split("/")
    return [
        record.timing
        for other, record in found.items()
        if other.startswith(f"{pipeline}/") and other.endswith(f"/{workload}") and record.timing is not None
    ]


def _spread(seconds: list[float]) -> float:
    """By how much the same thing, of one reference, took longer at most than at least."""
    return max(seconds) / min(seconds) - 1 if seconds else 0.0


def _stated(text: str, holds: bool, figures: str) -> str:
    return f"- {text}: {_told(holds, slower=not holds)} ({figures})."


if __name__ == "__main__":
    main(sys.argv[1])

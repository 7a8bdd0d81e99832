"""How long a device was busy: of calls that are profiled, and for that reason not timed."""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from qregress.produce.generate import OnStep
from qregress.produce.timing import Spent, synchronize

#: Cell and reference are profiled so often each, A B B A, and the least of each is taken. Where calls of one kind are
#: further apart both are profiled once more, as a ratio that is 5 % off is a regression: two whole calls of a full-size
#: PixArt-Sigma on an H100 differed by 0.1 to 2.7 %, of a pocket pipeline by up to 26 %; on an H200 what is profiled
#: here mostly by less than 1 %. Of seven cells there with 1.2 to 1.9 % between two calls a third one changed the ratio
#: by 0.3 % at most, and in one by 3.0 %, as it was itself the one that was off.
PROFILED = 2
_APART = 0.02
#: Up to which step a call is profiled: all steps run the same kernels, and a VAE is never quantized. Whole calls have
#: tens of thousands of kernels, whose records took the profiler as long to collect as the call itself.
STEPS = 2
#: The device rests so long on both sides of the moment that ends a step or a call, as the profiler's clock and the
#: host's may differ.
_REST_NS = 1_000_000
#: A kernel so near to such a moment says that they do differ, by most of a rest.
_CLOSE_NS = 100_000
_CUDA = DeviceType.CUDA
_Span = tuple[int, int]
_Seen = tuple[float | None, int | UnsetType]


class Beginning(NamedTuple):
    """The beginning of a pipeline's call.

    ``until``: calls it up to a step, calling something after each, and says whether that was before its end.
    ``steps``: how many a whole call has.
    """

    until: Callable[[int, OnStep], bool]
    steps: int


class Busy(msgspec.Struct, frozen=True):
    """Busy seconds of several calls of a cell and of its reference; nothing on a CPU.

    ``steps``: of text encoding and so many denoising steps, which are all that a call has, told from the first few as
    if all were alike; unset: of whole calls.
    """

    cell: tuple[float, ...] = ()
    steps: int | UnsetType = UNSET
    reference: tuple[float, ...] = ()


def device_busy(call: Beginning, device: str, spent: Spent) -> Busy:
    """Of a reference alone. What starting and reading the profiler took is added to ``spent``."""
    if not device.startswith("cuda"):
        return Busy()
    seen = _profiled([call] * PROFILED, device, spent)
    if _apart(seen):
        seen += _profiled([call], device, spent)
    return Busy(*_all_of(seen))


def busy_pairs(cell: Beginning, reference: Beginning, device: str, spent: Spent) -> Busy:
    """Of a cell and of its reference, in turn; nothing of either where the profiler saw none of one."""
    if not device.startswith("cuda"):
        return Busy()
    mine: list[_Seen] = []
    other: list[_Seen] = []
    order = [pair % 2 == first for pair in range(PROFILED) for first in (1, 0)]
    while order:
        seen = _profiled([cell if is_cell else reference for is_cell in order], device, spent)
        for each, is_cell in zip(seen, order, strict=True):
            (mine if is_cell else other).append(each)
        order = [False, True] if len(mine) == PROFILED and (_apart(mine) or _apart(other)) else []
    (busy, steps), (reference_busy, _) = _all_of(mine), _all_of(other)
    return Busy(busy, steps, reference_busy) if busy and reference_busy else Busy()


def _apart(seen: list[_Seen]) -> bool:
    """Whether calls of one kind differ by so much that one more is worth its time."""
    seconds, _ = _all_of(seen)
    return bool(seconds) and max(seconds) > (1 + _APART) * min(seconds)


def _all_of(seen: list[_Seen]) -> tuple[tuple[float, ...], int | UnsetType]:
    seconds = tuple(each for each, _ in seen if each is not None)
    return (seconds, seen[0][1]) if len(seconds) == len(seen) else ((), UNSET)


def _profiled(calls: Sequence[Beginning], device: str, spent: Spent) -> list[_Seen]:
    """Of each, seconds in which at least one kernel or copy ran on a CUDA device, and in how many steps.

    ``None`` where the profiler saw none: where it may not use the device's counters, or another one does. It is started
    once for all of them.
    """
    synchronize(device)
    profiler = profile(activities=[ProfilerActivity.CUDA])
    with spent.on("profiler"):
        profiler.start()
    try:
        ran = [_run(call, device) for call in calls]
    finally:
        with spent.on("profiler"):
            profiler.stop()
    with spent.on("profiler"):
        kineto = profiler.profiler
        events = kineto.kineto_results.events() if kineto is not None and kineto.kineto_results is not None else []
        spans = [(event.start_ns(), event.duration_ns()) for event in events if event.device_type() == _CUDA]
    return told(spans, [(each, call.steps) for each, call in zip(ran, calls, strict=True)])


class Ran(NamedTuple):
    """Moments of one call at which the device rests, in nanoseconds since 1970.

    ``first_ns``: after the first step; ``last_ns``: after the last that is profiled, before what a call does at its end
    (with offloading, weights are moved); neither of a call that was not ended. ``end_ns``: after everything.
    """

    first_ns: int | None
    last_ns: int | None
    end_ns: int


def _run(call: Beginning, device: str) -> Ran:
    """Make one call."""
    moments: list[int] = []

    def on_step(done: int) -> None:
        if done in {1, STEPS}:
            moments.append(_rest(device))

    ended = call.until(STEPS, on_step)
    first, last = (moments[0], moments[-1]) if ended else (None, None)
    return Ran(first, last, _rest(device))


def _rest(device: str) -> int:
    """A moment in which the device has nothing to do: nanoseconds since 1970, as the profiler counts them."""
    synchronize(device)
    time.sleep(_REST_NS / 1e9)
    moment = time.time_ns()
    time.sleep(_REST_NS / 1e9)
    return moment


def told(spans: Iterable[_Span], calls: Sequence[tuple[Ran, int]]) -> list[_Seen]:
    """Of each call, with the steps of a whole one, what spans of kernels (start, length) say.

    ``None`` of all where something ran in what should have been a rest: the two clocks are not the same.
    """
    ordered = sorted(spans)
    starts = [start for start, _ in ordered]
    ends = list(accumulate((start + length for start, length in ordered), max))
    seen: list[_Seen] = []
    begin = 0
    for ran, steps in calls:
        moments = [moment for moment in ran if moment is not None]
        places = [bisect(starts, moment + _CLOSE_NS) for moment in moments]
        if any(place and ends[place - 1] > moment - _CLOSE_NS for place, moment in zip(places, moments, strict=True)):
            return [(None, UNSET)] * len(calls)
        if places[-1] == begin:
            seen.append((None, UNSET))
        elif ran.first_ns is None:
            seen.append((covered(ordered[begin : places[-1]]) / 1e9, UNSET))
        else:
            first, last, _ = places
            # Steps after the first are taken as often as a call has them: otherwise text encoding, which a call has
            # once, would weigh as much as several times its share.
            others = covered(ordered[first:last]) * (steps - 1) / (STEPS - 1)
            seen.append(((covered(ordered[begin:first]) + others) / 1e9, steps))
        begin = places[-1]
    return seen


def covered(spans: Iterable[_Span]) -> int:
    """Length of the union of (start, length): kernels on two streams at once count once."""
    total = end = 0
    for start, length in sorted(spans):
        if start + length > end:
            total += start + length - max(start, end)
            end = start + length
    return total

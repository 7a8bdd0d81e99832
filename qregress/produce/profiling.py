"""How long a device was busy: of calls that are profiled, and for that reason not timed."""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from qregress.produce.generate import OnStep
from qregress.produce.timing import Spent, synchronize

#: Cell and reference are profiled so often each, A B B A, and the least of each is taken. Where calls of one kind are
#: further apart both are profiled once more: two whole calls of a full-size PixArt-Sigma on an H100 differed by 0.1 to
#: 2.7 %, of a pocket pipeline by up to 26 %; on an H200 what is profiled here differed by up to 0.8 %.
PROFILED = 2
_APART = 0.01
#: Up to which step a call is profiled: all steps run the same kernels, and a VAE is never quantized. Whole calls have
#: tens of thousands of kernels, whose records took the profiler as long to collect as the call itself.
STEPS = 2
#: The device rests so long on both sides of the moment that ends the first step, or a call, for its clock and the
#: host's may differ: a kernel begins and ends on one side of it.
_REST_S = 0.001
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

    ``steps``: of text encoding and so many denoising steps, which are all that a call has; unset: of whole calls, which
    had no more steps than are profiled.
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
    return Busy(*_told(seen))


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
    (busy, steps), (reference_busy, _) = _told(mine), _told(other)
    return Busy(busy, steps, reference_busy) if busy and reference_busy else Busy()


def _apart(seen: list[_Seen]) -> bool:
    """Whether calls of one kind differ by so much that one more is worth its time."""
    seconds, _ = _told(seen)
    return bool(seconds) and max(seconds) > (1 + _APART) * min(seconds)


def _told(seen: list[_Seen]) -> tuple[tuple[float, ...], int | UnsetType]:
    seconds = tuple(each for each, _ in seen if each is not None)
    return (seconds, seen[0][1]) if len(seconds) == len(seen) else ((), UNSET)


def _profiled(calls: Sequence[Beginning], device: str, spent: Spent) -> list[_Seen]:
    """Of each, seconds in which at least one kernel or copy ran on a CUDA device, and in how many steps.

    ``None`` where the profiler saw none: where it may not use the device's counters, or another one does. It is started
    once for all of them, which takes it as long as two steps of a full-size pipeline.
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
        ends = [each.end_ns for each in ran]
        parts: list[list[_Span]] = [[] for _ in calls]
        for span in spans:
            parts[min(bisect(ends, _middle(span)), len(ends) - 1)].append(span)
    return [_seconds(*each) for each in zip(parts, ran, calls, strict=True)]


class _Ran(NamedTuple):
    """Moments of one call, in nanoseconds since 1970: the first step's end, where the call was ended; its own."""

    first_ns: int | None
    end_ns: int


def _run(call: Beginning, device: str) -> _Ran:
    """Make one call."""
    moments: list[int] = []

    def on_step(done: int) -> None:
        if done == 1:
            moments.append(_rest(device))

    ended = call.until(STEPS, on_step)
    return _Ran(moments[0] if ended else None, _rest(device))


def _rest(device: str) -> int:
    """A moment in which the device has nothing to do: nanoseconds since 1970, as the profiler counts them."""
    synchronize(device)
    time.sleep(_REST_S)
    moment = time.time_ns()
    time.sleep(_REST_S)
    return moment


def _seconds(spans: Sequence[_Span], ran: _Ran, call: Beginning) -> _Seen:
    if not spans:
        return None, UNSET
    if ran.first_ns is None:
        return covered(spans) / 1e9, UNSET
    return all_steps(spans, ran.first_ns, STEPS, call.steps) / 1e9, call.steps


def all_steps(spans: Sequence[_Span], end_ns: int, profiled: int, steps: int) -> float:
    """Nanoseconds of text encoding and all steps, of spans (start, length) of the first few steps.

    ``end_ns``: when the first step was over. Those after it are alike, and taken as often as a call has them: otherwise
    text encoding, which a call has once, would weigh as much as several times its share.
    """
    first = covered(span for span in spans if _middle(span) < end_ns)
    return first + (covered(spans) - first) * (steps - 1) / (profiled - 1)


def _middle(span: _Span) -> float:
    return span[0] + span[1] / 2


def covered(spans: Iterable[_Span]) -> int:
    """Length of the union of (start, length): kernels on two streams at once count once."""
    total = end = 0
    for start, length in sorted(spans):
        if start + length > end:
            total += start + length - max(start, end)
            end = start + length
    return total

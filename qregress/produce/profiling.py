"""How long a device was busy: of calls that are profiled, and for that reason not timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import UNSET, UnsetType
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from qregress.errors import ProduceError
from qregress.produce.timing import synchronize

#: Cell and reference are profiled so often each, A B B A, and the least of each is taken: two calls of a
#: full-size PixArt-Sigma on an H100 differed by 0.1 to 2.7 %, where wall times of the same cell were up to 1.9 apart.
PROFILED = 2
#: Up to which step a call is profiled: all steps run the same kernels, and a VAE is never quantized. Whole calls have
#: tens of thousands of kernels, whose records took the profiler as long to collect as the call itself.
STEPS = 5
_CUDA = DeviceType.CUDA

#: Calls a pipeline up to a step, and says whether that was before its end.
UntilStep = Callable[[int], bool]


class Busy(msgspec.Struct, frozen=True):
    """Busy seconds of several calls of a cell and of its reference; nothing on a CPU.

    ``steps``: of text encoding and so many denoising steps; unset: of whole calls, which had no more steps.
    """

    cell: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    steps: int | UnsetType = UNSET


def device_busy(call: UntilStep, device: str) -> Busy:
    """Of a reference alone."""
    if not device.startswith("cuda"):
        return Busy()
    found = [_busy(call, device) for _ in range(PROFILED)]
    return Busy(cell=tuple(seconds for seconds, _ in found), steps=found[0][1])


def busy_pairs(cell: UntilStep, reference: UntilStep, device: str) -> Busy:
    """Of a cell and of its reference, in turn, A B B A."""
    if not device.startswith("cuda"):
        return Busy()
    found: dict[bool, list[tuple[float, int | UnsetType]]] = {True: [], False: []}
    for pair in range(PROFILED):
        for is_cell in (pair % 2 == 1, pair % 2 == 0):
            found[is_cell].append(_busy(cell if is_cell else reference, device))
    mine, other = (tuple(seconds for seconds, _ in found[which]) for which in (True, False))
    return Busy(cell=mine, reference=other, steps=found[True][0][1])


def _busy(call: UntilStep, device: str) -> tuple[float, int | UnsetType]:
    """Seconds in which at least one kernel or copy ran on a CUDA device, and up to which step.

    Raises ``ProduceError`` where the profiler saw none, as where it may not use the device's counters.
    """
    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        ended = call(STEPS)
        synchronize(device)
    kineto = profiler.profiler
    events = kineto.kineto_results.events() if kineto is not None and kineto.kineto_results is not None else []
    spans = [(event.start_ns(), event.duration_ns()) for event in events if event.device_type() == _CUDA]
    if not spans:
        raise ProduceError(f"torch's profiler saw no kernel on {device}: its busy time cannot be told")
    return covered(spans) / 1e9, STEPS if ended else UNSET


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of (start, length): kernels on two streams at once count once."""
    total = end = 0
    for start, length in sorted(spans):
        if start + length > end:
            total += start + length - max(start, end)
            end = start + length
    return total

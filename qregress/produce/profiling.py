"""How long a device was busy: of calls that are profiled, and for that reason not timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from qregress.errors import ProduceError
from qregress.produce.timing import synchronize

#: Cell and reference are profiled so often each, A B B A, and the least of each is taken: two calls of a
#: full-size PixArt-Sigma on an H100 differed by 0.1 to 2.7 %, where wall times of the same cell were up to 1.9 apart.
PROFILED = 2
_CUDA = DeviceType.CUDA


def device_busy(action: Callable[[], object], device: str) -> tuple[float, ...]:
    """Busy seconds of several calls on a CUDA device; nothing on a CPU."""
    return tuple(_busy(action, device) for _ in range(PROFILED)) if device.startswith("cuda") else ()


def _busy(action: Callable[[], object], device: str) -> float:
    """Seconds in which at least one kernel or copy of an action ran on a CUDA device.

    Raises ``ProduceError`` where the profiler saw none, as where it may not use the device's counters.
    """
    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        action()
        synchronize(device)
    kineto = profiler.profiler
    events = kineto.kineto_results.events() if kineto is not None and kineto.kineto_results is not None else []
    spans = [(event.start_ns(), event.duration_ns()) for event in events if event.device_type() == _CUDA]
    if not spans:
        raise ProduceError(f"torch's profiler saw no kernel on {device}: its busy time cannot be told")
    return covered(spans) / 1e9


def busy_pairs(
    cell: Callable[[], object], reference: Callable[[], object], device: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Busy seconds of a cell and of its reference, in turn, A B B A; nothing on a CPU."""
    if not device.startswith("cuda"):
        return (), ()
    found: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(PROFILED):
        for is_cell in (pair % 2 == 1, pair % 2 == 0):
            found[is_cell].append(_busy(cell if is_cell else reference, device))
    return tuple(found[True]), tuple(found[False])


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of (start, length): kernels on two streams at once count once."""
    total = end = 0
    for start, length in sorted(spans):
        if start + length > end:
            total += start + length - max(start, end)
            end = start + length
    return total

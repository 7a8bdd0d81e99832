"""Interleaved timing of a cell and its reference."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from msgspec import UNSET

from qregress.record import Timing
from qregress.stats import ratio

#: Where no limit has to be told from the ratio, sampling stops at this half-width of its interval.
_RELATIVE_WIDTH = 0.05
#: The interval is looked at again after so many times more pairs: a look after each pair would end as soon as chance
#: moves it past a limit once.
_LOOK_AGAIN = 1.5
#: Kernels that ``launching`` queues: 4 to 8 ms of a host's, and so few that a device's queue was never seen to fill,
#: after which a launch would wait for the device.
_LAUNCHES = 500


class Spent:
    """Where the seconds of a cell go, part by part: see ``Record.spent``."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._what, self._since = "", 0.0

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Add the wall time of something. What is queued on a device at its end belongs to whatever waits for it.

        Of something else that this is within, it is no part.
        """
        around = self._turn(what)
        try:
            yield
        finally:
            self._turn(around)

    def _turn(self, what: str) -> str:
        """From now on to something else; returns what it was."""
        now, before = time.perf_counter(), self._what
        if before:
            self._seconds[before] += now - self._since
        self._what, self._since = what, now
        return before

    def take(self) -> dict[str, float]:
        """What came together since the last time."""
        taken = dict(self._seconds)
        self._seconds.clear()
        return taken


def synchronize(device: str) -> None:
    """Wait for the device: its work is asynchronous, and the host's clock alone would time the queueing."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(action: Callable[[], None], device: str) -> float:
    """Wall seconds of one call, device work included."""
    synchronize(device)
    start = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - start


def launching(device: str) -> float:
    """Launch overhead: seconds in which the host launches one of the smallest kernels, the mean over some hundreds."""
    number = torch.zeros((), device=device)
    number.add_(1)  # the kernel is brought to the device
    synchronize(device)
    start = time.perf_counter()
    for _ in range(_LAUNCHES):
        number.add_(1)
    return (time.perf_counter() - start) / _LAUNCHES


def interleave(
    cell: Callable[[range], None],
    reference: Callable[[range], None],
    batches: Sequence[range],
    *,
    device: str,
    pairs: int,
    time_s: float,
    resolve: Sequence[float],
    on_pair: Callable[[int, int], None],
) -> Timing:
    """Time cell and reference in pairs, A B B A, so that a drift of the machine meets both alike.

    All batches have the same size, as quantiles of a mixture mean nothing. They are taken in turn, at least ``pairs``
    of them. Pairs are then added until the interval of the ratio excludes every ratio in ``resolve``, or
    ``time_s`` seconds have gone into pairs. Both must be warm. ``on_pair`` is called after each pair, untimed. Before
    each pair the host of a CUDA device is timed.
    """
    mine: list[float] = []
    other: list[float] = []
    launches: list[float] = []
    look = pairs
    begin = time.perf_counter()
    while True:
        count = len(mine)
        batch = batches[count % len(batches)]
        if device.startswith("cuda"):
            launches.append(launching(device))
        order = ((reference, other), (cell, mine)) if count % 2 == 0 else ((cell, mine), (reference, other))
        for action, samples in order:
            samples.append(timed(partial(action, batch), device))
        on_pair(len(mine), max(look, len(mine)))
        if len(mine) < pairs:
            continue
        spent = time.perf_counter() - begin >= time_s
        if spent or (len(mine) >= look and _clear(mine, other, resolve)):
            return Timing(samples_s=tuple(mine), reference_s=tuple(other), launch_s=tuple(launches) or UNSET)
        if len(mine) >= look:
            look = math.ceil(_LOOK_AGAIN * len(mine))


def _clear(samples: list[float], reference: list[float], resolve: Sequence[float]) -> bool:
    found = ratio(samples, reference)
    if found is None:
        return False
    if resolve:
        return all(found.excludes(limit) for limit in resolve)
    return (found.high - found.low) / 2 <= _RELATIVE_WIDTH * found.value

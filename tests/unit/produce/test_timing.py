"""Interleaving, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from qregress.produce import timing
from qregress.record import Timing

BATCHES = [range(1), range(1, 2)]


class Clock:
    """Time that passes only when something runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def runs(self, name: str, seconds: Callable[[int], float]) -> Callable[[range], None]:
        """Something that takes that long on its n-th call."""

        def run(batch: range) -> None:
            self.now += seconds(self.calls.count(name))
            self.calls.append(name)
            assert batch in BATCHES

        return run


def measure(
    monkeypatch: pytest.MonkeyPatch,
    cell: Callable[[int], float],
    resolve: tuple[float, ...],
    time_s: float = 1000.0,
    device: str = "cpu",
) -> tuple[Timing, Clock]:
    """Interleave a cell with a reference of one second, six pairs at least."""
    clock = Clock()
    monkeypatch.setattr("qregress.produce.timing.time.perf_counter", lambda: clock.now)
    found = timing.interleave(
        clock.runs("cell", cell),
        clock.runs("reference", lambda _: 1.0),
        BATCHES,
        device=device,
        pairs=6,
        time_s=time_s,
        resolve=resolve,
        on_pair=lambda _done, _total: None,
    )
    return found, clock


def test_order_is_a_b_b_a(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given pairs, then each kind goes first in turn, so that a drift meets both alike."""
    found, clock = measure(monkeypatch, lambda _: 1.5, (2.0,))
    assert clock.calls == ["reference", "cell", "cell", "reference"] * 3
    assert (found.samples_s, found.reference_s) == ((1.5,) * 6, (1.0,) * 6)


def test_as_many_pairs_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more batches than pairs, then the first ones are timed: the reference's images are known already."""
    seen: list[tuple[str, range]] = []
    monkeypatch.setattr("qregress.produce.timing.time.perf_counter", lambda: float(len(seen)))
    batches = [range(index, index + 1) for index in range(8)]
    timing.interleave(
        lambda batch: seen.append(("cell", batch)),
        lambda batch: seen.append(("reference", batch)),
        batches,
        device="cpu",
        pairs=2,
        time_s=0.0,
        resolve=(),
        on_pair=lambda _done, _total: None,
    )
    names = ("reference", "cell", "cell", "reference")
    assert seen == list(zip(names, [*batches[:1] * 2, *batches[1:2] * 2], strict=True))


def test_pairs_are_added_until_the_interval_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given samples that scatter around the limit at first, then sampling goes on until they lie below it."""
    found, _ = measure(monkeypatch, lambda call: (1.2, 2.4)[call % 2] if call < 6 else 1.2, (1.5,))
    assert len(found.samples_s) > 6


def test_pairs_are_not_added_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a lower quartile on both sides of the limit for good, then the time limit ends it."""
    found, clock = measure(monkeypatch, lambda call: (1.0, 1.1, 1.2, 1.3)[call % 4], (1.05,), time_s=60.0)
    assert 60.0 < clock.now < 120.0
    assert len(found.samples_s) == len(found.reference_s)


def test_what_is_within_something_else_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a call within a proof that goes on within the call, then each has its own seconds, an error or not."""
    moments = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 100.0, 101.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    spent = timing.Spent()
    with suppress(ValueError), spent.on("proof"), spent.on("calls"), spent.on("proof"):
        raise ValueError
    assert spent.take() == {"proof": 1.0 + 4.0 + 16.0, "calls": 2.0 + 8.0}
    with spent.on("files"):
        pass
    assert spent.take() == {"files": 1.0}


def test_how_fast_a_host_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a clock that goes on for a second between two looks, then a launch takes its share of that."""
    looks = iter([10.0, 11.0])
    monkeypatch.setattr("qregress.produce.timing.time.perf_counter", lambda: next(looks))
    assert timing.launching("cpu") == 1.0 / 500


def test_only_the_host_of_a_gpu_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a CPU, then nothing launches; given a GPU, then its host is timed before each pair."""
    on_cpu, _ = measure(monkeypatch, lambda _: 1.5, (2.0,))
    assert not on_cpu.launch_s
    order: list[str] = []

    def cell(_: int) -> float:
        order.append("cell")
        return 1.5

    def launching(device: str) -> float:
        order.append(device)
        return 8e-6

    monkeypatch.setattr(timing, "launching", launching)
    monkeypatch.setattr(timing, "synchronize", lambda _: None)
    on_cuda, _ = measure(monkeypatch, cell, (2.0,), device="cuda:1")
    assert on_cuda.launch_s == (8e-6,) * 6
    assert order == ["cuda:1", "cell"] * 6

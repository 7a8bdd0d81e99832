"""Busy time out of spans of kernels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity

from qregress.produce import profiling
from qregress.produce.profiling import STEPS, Busy, UntilStep, busy_pairs, covered, device_busy
from qregress.produce.timing import Spent


@pytest.mark.parametrize(
    ("spans", "total"),
    [
        ([], 0),
        ([(0, 5), (10, 5)], 10),
        ([(10, 5), (0, 5)], 10),
        ([(0, 10), (2, 3)], 10),
        ([(0, 10), (5, 10)], 15),
        ([(0, 10), (2, 3), (4, 10), (20, 1)], 15),
    ],
    ids=["nothing", "apart", "any order", "inside", "overlap", "all"],
)
def test_kernels_at_once_count_once(spans: list[tuple[int, int]], total: int) -> None:
    """Given spans on several streams, then their union is what the device was busy for."""
    assert covered(spans) == total


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of what is profiled; each call takes a second longer than the one before, and is ended early."""
    order: list[str] = []

    def busy(call: UntilStep, _device: str, _spent: Spent) -> tuple[float | None, int]:
        order.append("cell" if call(STEPS) else "reference")
        return float(len(order)), STEPS

    monkeypatch.setattr(profiling, "_busy", busy)
    return order


def test_pairs_are_profiled_in_turn(profiled: list[str]) -> None:
    """Given a cell and its reference, then they take turns, A B B A, and each has its own seconds."""
    found = busy_pairs(lambda _: True, lambda _: False, "cuda", Spent())
    assert profiled == ["reference", "cell", "cell", "reference", "reference", "cell"]
    assert found == Busy(cell=(2.0, 3.0, 6.0), steps=STEPS, reference=(1.0, 4.0, 5.0))
    profiled.clear()
    assert device_busy(lambda _: True, "cuda:1", Spent()) == Busy(cell=(1.0, 2.0, 3.0), steps=STEPS)


def test_a_profiler_that_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a profiler that saw no kernel of one of the calls, then there is no busy time, of neither."""
    seen = iter([1.0, None, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(profiling, "_busy", lambda *_: (next(seen), STEPS))
    assert busy_pairs(lambda _: True, lambda _: False, "cuda", Spent()) == Busy()


def test_a_cpu_has_no_busy_time() -> None:
    """Given a CPU, then nothing is called."""

    def call(_: int) -> bool:
        raise AssertionError

    assert busy_pairs(call, call, "cpu", Spent()) == Busy()
    assert device_busy(call, "cpu", Spent()) == Busy()


def test_a_call_that_fails_leaves_no_profiler_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a call that raises while it is profiled, then the next one can be profiled."""

    def fail(_: int) -> bool:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(profiling, "synchronize", lambda _: None)
    monkeypatch.setattr(profiling, "ProfilerActivity", SimpleNamespace(CUDA=ProfilerActivity.CPU))
    spent = Spent()
    with pytest.raises(torch.OutOfMemoryError):
        device_busy(fail, "cuda", spent)
    assert not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    device_busy(lambda _: True, "cuda", spent)
    assert set(spent.take()) == {"profiler"}

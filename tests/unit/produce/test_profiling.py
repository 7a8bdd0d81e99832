"""Busy time out of spans of kernels."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from msgspec import UNSET
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from qregress.produce import profiling
from qregress.produce.generate import OnStep
from qregress.produce.profiling import STEPS, Beginning, Busy, all_steps, busy_pairs, covered, device_busy
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


def test_text_encoding_counts_once() -> None:
    """Given kernels of text encoding and of each of three steps, then those of the steps count as often as steps do."""
    encoding, steps = [(0, 500), (400, 200)], [(700, 100), (1000, 60), (1040, 60), (1200, 100)]
    assert all_steps([*encoding, *steps], 900, 3, 20) == 600 + 100 + 19 * 100
    # Its clock and the host's differ: a kernel is where most of it is.
    assert all_steps([*encoding, *steps], 790, 3, 20) == 600 + 100 + 19 * 100
    assert all_steps([*encoding, *steps], 900, 3, 3) == covered([*encoding, *steps])


def test_the_first_step_is_told_by_a_rest_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a call that is ended, then what ran up to its first step counts once; of one that has ended, all of it."""
    monkeypatch.setattr(profiling, "synchronize", lambda _: None)
    monkeypatch.setattr(profiling, "ProfilerActivity", SimpleNamespace(CUDA=ProfilerActivity.CPU))
    monkeypatch.setattr(profiling, "_CUDA", DeviceType.CPU)
    monkeypatch.setattr(profiling, "PROFILED", 1)

    def work(seconds: float) -> None:
        with torch.profiler.record_function("kernel"):
            time.sleep(seconds)

    def call(until: int, on_step: OnStep) -> bool:
        work(0.1)
        for done in range(1, until + 1):
            work(0.02)
            on_step(done)
        return until < 5

    found = device_busy(Beginning(call, 21), "cuda", Spent())
    assert found.steps == 21
    assert 0.52 <= found.cell[0] < 0.75  # a third of 21 steps would be text encoding otherwise: 1.12
    monkeypatch.setattr(profiling, "STEPS", 5)
    found = device_busy(Beginning(call, 5), "cuda", Spent())
    assert found.steps is UNSET
    assert 0.2 <= found.cell[0] < 0.3


def _until(_: int, on_step: OnStep) -> bool:
    on_step(1)
    return True


CELL, OTHER = Beginning(_until, 20), Beginning(_until, 20)


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of what is profiled; each call takes a second longer than the one before, and is ended early."""
    order: list[str] = []

    def busy(call: Beginning, _device: str, _spent: Spent) -> tuple[float | None, int]:
        order.append("cell" if call is CELL else "reference")
        return float(len(order)), call.steps

    monkeypatch.setattr(profiling, "_busy", busy)
    return order


def test_pairs_are_profiled_in_turn(profiled: list[str]) -> None:
    """Given a cell and its reference, then they take turns, A B B A, and each has its own seconds."""
    found = busy_pairs(CELL, OTHER, "cuda", Spent())
    assert profiled == ["reference", "cell", "cell", "reference", "reference", "cell"]
    assert found == Busy(cell=(2.0, 3.0, 6.0), steps=20, reference=(1.0, 4.0, 5.0))
    profiled.clear()
    assert device_busy(CELL, "cuda:1", Spent()) == Busy(cell=(1.0, 2.0, 3.0), steps=20)


def test_a_profiler_that_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a profiler that saw no kernel of one of the calls, then there is no busy time, of neither."""
    seen = iter([1.0, None, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(profiling, "_busy", lambda *_: (next(seen), STEPS))
    assert busy_pairs(CELL, OTHER, "cuda", Spent()) == Busy()


def test_a_cpu_has_no_busy_time() -> None:
    """Given a CPU, then nothing is called."""

    def until(_: int, __: OnStep) -> bool:
        raise AssertionError

    call = Beginning(until, 20)
    assert busy_pairs(call, call, "cpu", Spent()) == Busy()
    assert device_busy(call, "cpu", Spent()) == Busy()


def test_a_call_that_fails_leaves_no_profiler_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a call that raises while it is profiled, then the next one can be profiled."""

    def fail(_: int, __: OnStep) -> bool:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(profiling, "synchronize", lambda _: None)
    monkeypatch.setattr(profiling, "ProfilerActivity", SimpleNamespace(CUDA=ProfilerActivity.CPU))
    spent = Spent()
    with pytest.raises(torch.OutOfMemoryError):
        device_busy(Beginning(fail, 20), "cuda", spent)
    assert not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    device_busy(CELL, "cuda", spent)
    assert set(spent.take()) == {"profiler"}

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
from qregress.produce.profiling import Beginning, Busy, all_steps, busy_pairs, covered, device_busy
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


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that is profiled as a device."""
    monkeypatch.setattr(profiling, "synchronize", lambda _: None)
    monkeypatch.setattr(profiling, "ProfilerActivity", SimpleNamespace(CUDA=ProfilerActivity.CPU))
    monkeypatch.setattr(profiling, "_CUDA", DeviceType.CPU)


def work(seconds: float) -> None:
    """What a profiler sees."""
    with torch.profiler.record_function("kernel"):
        time.sleep(seconds)


@pytest.mark.usefixtures("on_cpu")
def test_the_first_step_is_told_by_a_rest_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a call that is ended, then what ran up to its first step counts once; of one that has ended, all of it."""
    monkeypatch.setattr(profiling, "PROFILED", 1)

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


@pytest.mark.usefixtures("on_cpu")
def test_calls_that_are_alike_are_profiled_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given calls that take as long as each other, then two of each tell; of a reference alone as well."""
    monkeypatch.setattr(profiling, "_APART", 0.5)  # what sleeps on a busy machine is late by milliseconds
    order: list[str] = []

    def beginning(name: str) -> Beginning:
        def until(_: int, __: OnStep) -> bool:
            order.append(name)
            work(0.05)
            return False

        return Beginning(until, 1)

    found = busy_pairs(beginning("cell"), beginning("reference"), "cuda", Spent())
    assert order == ["reference", "cell", "cell", "reference"]
    assert (len(found.cell), len(found.reference)) == (2, 2)
    order.clear()
    assert len(device_busy(beginning("cell"), "cuda", Spent()).cell) == len(order) == 2


@pytest.mark.usefixtures("on_cpu")
def test_pairs_are_profiled_in_turn() -> None:
    """Given calls that differ, then cell and reference take turns, A B B A A B, and each has its own seconds."""
    order: list[str] = []

    def beginning(name: str, seconds: float) -> Beginning:
        def until(_: int, on_step: OnStep) -> bool:
            order.append(name)
            work(len(order) * seconds)
            on_step(1)
            return False

        return Beginning(until, 1)

    cell, reference = beginning("cell", 0.03), beginning("reference", 0.01)
    found = busy_pairs(cell, reference, "cuda", Spent())
    assert order == ["reference", "cell", "cell", "reference", "reference", "cell"]
    assert [round(seconds, 2) for seconds in found.cell] == pytest.approx([0.06, 0.09, 0.18], abs=0.011)
    assert [round(seconds, 2) for seconds in found.reference] == pytest.approx([0.01, 0.04, 0.05], abs=0.011)
    order.clear()
    assert [round(seconds, 2) for seconds in device_busy(cell, "cuda:1", Spent()).cell] == pytest.approx(
        [0.03, 0.06, 0.09], abs=0.011
    )


@pytest.mark.usefixtures("on_cpu")
def test_a_profiler_that_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a profiler that saw no kernel of one of the calls, then there is no busy time, of neither."""

    def nothing(_: int, __: OnStep) -> bool:
        return False

    def something(_: int, __: OnStep) -> bool:
        work(0.001)
        return False

    seen, unseen = Beginning(something, 1), Beginning(nothing, 1)
    assert busy_pairs(seen, seen, "cuda", Spent()).cell
    assert busy_pairs(seen, unseen, "cuda", Spent()) == Busy()
    assert busy_pairs(unseen, seen, "cuda", Spent()) == Busy()
    monkeypatch.setattr(profiling, "_CUDA", DeviceType.CUDA)
    assert device_busy(seen, "cuda", Spent()) == Busy()


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
    device_busy(Beginning(lambda _, __: False, 20), "cuda", spent)
    assert set(spent.take()) == {"profiler"}

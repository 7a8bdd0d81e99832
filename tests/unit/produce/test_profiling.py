"""Busy time out of spans of kernels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from msgspec import UNSET
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from qregress.produce import profiling
from qregress.produce.generate import OnStep
from qregress.produce.profiling import Beginning, Busy, Ran, busy_pairs, covered, device_busy, told
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


MS = 1_000_000  # nanoseconds


def test_text_encoding_counts_once() -> None:
    """Given kernels of text encoding and of each of two steps, then the second step counts as often as steps do."""
    spans = [(0, 50 * MS), (40 * MS, 20 * MS), (70 * MS, 10 * MS), (100 * MS, 6 * MS), (104 * MS, 6 * MS)]
    ran = Ran(90 * MS, 120 * MS, 130 * MS)
    assert told(spans, [(ran, 20)]) == [((0.06 + 0.01) + 19 * 0.01, 20)]
    assert told(spans, [(ran, 2)]) == [(0.08, 2)]
    assert told(spans, [(Ran(None, None, 130 * MS), 2)]) == [(0.08, UNSET)]


def test_what_a_call_does_at_its_end_is_no_step() -> None:
    """Given weights that are moved when a call has ended, as with offloading, then they are in no step."""
    spans = [(0, 10 * MS), (20 * MS, 10 * MS), (40 * MS, 500 * MS)]
    assert told(spans, [(Ran(15 * MS, 35 * MS, 600 * MS), 20)]) == [(0.01 + 19 * 0.01, 20)]


def test_calls_are_told_apart() -> None:
    """Given calls one after the other, in any order of their kernels, then each has its own; one may have none."""
    spans = [(70 * MS, 3 * MS), (0, 1 * MS), (50 * MS, 2 * MS)]
    ran = [Ran(None, None, end * MS) for end in (20, 30, 60, 100)]
    seen = told(spans, [(each, 1) for each in ran])
    assert seen == [(0.001, UNSET), (None, UNSET), (0.002, UNSET), (0.003, UNSET)]


@pytest.mark.parametrize("span", [(89 * MS, 2 * MS), (90 * MS, MS), (80 * MS, 100 * MS), (89 * MS, MS * 95 // 100)])
def test_a_kernel_in_a_rest(span: tuple[int, int]) -> None:
    """Given a kernel where the device should have rested, then its clock is another one, and nothing is said."""
    spans = [(0, 50 * MS), span, (100 * MS, 5 * MS)]
    assert told(spans, [(Ran(90 * MS, 190 * MS, 200 * MS), 20)]) == [(None, UNSET)]
    assert told([(0, 50 * MS), (100 * MS, 5 * MS)], [(Ran(90 * MS, 190 * MS, 200 * MS), 20)]) != [(None, UNSET)]


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of what is profiled; a call takes as many seconds as its beginning has steps, and what EACH adds."""
    order: list[str] = []

    def seconds(calls: Sequence[Beginning], _device: str, _spent: Spent) -> list[tuple[float, int]]:
        found = []
        for call in calls:
            order.append("cell" if call is CELL else "reference")
            found.append((call.steps + EACH.more * len(order), call.steps))
        return found

    monkeypatch.setattr(profiling, "_profiled", seconds)
    return order


#: Seconds that each call takes more than the one before.
EACH = SimpleNamespace(more=0.0)
CELL, OTHER = (Beginning(lambda _, __: True, steps) for steps in (200, 100))


def test_calls_that_are_alike_are_profiled_twice(profiled: list[str]) -> None:
    """Given calls that take as long as each other, then two of each tell; of a reference alone as well."""
    assert busy_pairs(CELL, OTHER, "cuda", Spent()) == Busy((200.0, 200.0), 200, (100.0, 100.0))
    assert profiled == ["reference", "cell", "cell", "reference"]
    profiled.clear()
    assert device_busy(CELL, "cuda:1", Spent()) == Busy((200.0, 200.0), 200)


def test_calls_that_differ_are_profiled_once_more(profiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given calls of which each takes longer than the one before, then both kinds take one more turn."""
    monkeypatch.setattr(EACH, "more", 1.0)
    assert busy_pairs(CELL, OTHER, "cuda", Spent()) == Busy((202.0, 203.0, 206.0), 200, (101.0, 104.0, 105.0))
    assert profiled == ["reference", "cell", "cell", "reference", "reference", "cell"]
    profiled.clear()
    assert device_busy(OTHER, "cuda:1", Spent()).cell == (101.0, 102.0)
    monkeypatch.setattr(EACH, "more", 5.0)
    profiled.clear()
    assert device_busy(OTHER, "cuda:1", Spent()).cell == (105.0, 110.0, 115.0)


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
def test_a_real_profiler() -> None:
    """Given a call whose text encoding takes five times as long as a step, then it is not taken for one."""

    def call(until: int, on_step: OnStep) -> bool:
        work(0.1)
        for done in range(1, until + 1):
            work(0.02)
            on_step(done)
        work(0.3)  # of the end
        return True

    found = device_busy(Beginning(call, 21), "cuda", Spent())
    assert found.steps == 21
    # Whatever the machine does beside, sleeping is never shorter; of 2 of 21 steps it would be 1.26, with the end 6.5.
    assert 0.52 <= min(found.cell) < 1.2


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

"""The allocator's bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qregress.produce.memory import Window, account, loaded, stored, watch


def test_peak_and_what_is_left() -> None:
    """Given 4 MB kept and 8 MB let go of, then the peak holds both and 4 MB are left."""

    def action() -> torch.Tensor:
        kept = torch.zeros(1_000_000)
        torch.zeros(2_000_000)
        return kept

    kept, window = watch(action, "cpu")
    assert (window.peak, window.left) == (12_000_000, 4_000_000)
    assert kept.nbytes == window.left


def recast(model: nn.Module, features: int = 64) -> torch.Tensor:
    """A call of a layer that is stored in half precision and computes in single, as layerwise casting has it."""
    model.float()
    made: torch.Tensor = model(torch.ones(4, features))
    model.half()
    return made.detach()


def half(features: int) -> nn.Module:
    """Such a layer, allocated where the profiler sees it, as everything is that is quantized."""
    return watch(lambda: nn.Linear(features, features, bias=False).half(), "cpu")[0]


def test_weights_that_a_call_allocates_anew() -> None:
    """Given a call that casts a layer there and back, twice, then its weight is not counted beside what it stores."""
    model = half(64)
    for _ in range(2):
        made, window = watch(lambda: recast(model), "cpu", {"model": model})
        assert window.left == made.nbytes
        assert window.without(made.nbytes, "cpu").left == 0
        assert window.without(made.nbytes, "cuda") is window


def test_weights_from_before_any_window() -> None:
    """Given a layer that the profiler has never seen, then what it took before is taken off all the same."""
    model = nn.Linear(64, 64, bias=False).half()
    made, window = watch(lambda: recast(model), "cpu", {"model": model})
    assert window.left == made.nbytes


def test_weights_that_are_cast_after_the_peak() -> None:
    """Given a peak before one of two layers is cast at all, then only what the other had taken is off the peak."""
    first, second = half(64), half(512)

    def action() -> None:
        recast(first)
        torch.empty(10_000_000, dtype=torch.uint8)
        recast(second, 512)

    _, window = watch(action, "cpu", {"first": first, "second": second})
    assert (window.peak, window.left) == (10_000_000, 0)


def test_what_quantizing_keeps() -> None:
    """Given 500 bytes that stay beside 256 of a new component, then they count, and the peak with what was there."""
    made, other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    loading = loaded({"a": made, "b": other}, {"a": made}, Window(peak=2000, left=756), "cpu")
    memory = account({"a": made, "b": other}, Window(peak=100, left=10), "cpu", loading)
    assert (memory.storage_bytes, memory.static_bytes, memory.peak_bytes) == (512, 512 + 500 + 10, 512 + 500 + 100)
    assert memory.load_peak_bytes == 256 + 2000


def test_what_has_left_the_device_is_not_kept() -> None:
    """Given a component that is moved away once it is quantized, as offload does, then no byte of it is on the device.

    ``meta`` stands for the host of a CUDA device.
    """
    made, window = watch(lambda: nn.Linear(512, 512, bias=False), "cpu")
    loading = loaded({"a": made}, {"a": made}, window, "cpu")
    memory = account({"a": made.to("meta")}, Window(), "cpu", loading)
    assert (memory.storage_bytes, memory.static_bytes, memory.load_peak_bytes) == (0, 0, 512 * 512 * 4)


def test_the_same_three_times() -> None:
    """Given the same forward pass, then the same byte count: a process's resident size is not so."""
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    x = torch.randn(32, 64)
    with torch.no_grad():
        peaks = {watch(lambda: model(x), "cpu")[1].peak for _ in range(3)}
    assert len(peaks) == 1
    assert peaks.pop() >= 2 * 32 * 256 * 4  # input and output of the activation are alive together


def test_components_alone_and_together() -> None:
    """Given two components that share one, then together it counts once."""
    shared = nn.Linear(8, 8, bias=False)
    total, each = stored({"a": shared, "b": nn.Sequential(shared, nn.Linear(8, 8, bias=False))}, "cpu")
    assert (total, each) == (2 * 256, {"a": 256, "b": 512})


def test_a_block_is_given_back_only_by_its_own_window() -> None:
    """Given addresses that come again between windows, then no window gives back what another one took.

    torch's profiler remembers sizes by address. Blocks of a first window are freed outside of it; blocks that no window
    saw then lie at their addresses, and are freed in a second window.
    """
    lefts = []
    for _ in range(20):
        kept, _ = watch(lambda: [torch.empty(4096) for _ in range(64)], "cpu")
        del kept
        unseen = [torch.empty(2048) for _ in range(128)]
        _, window = watch(unseen.clear, "cpu")
        lefts.append((window.left, window.peak))
    assert set(lefts) == {(0, 0)}


@pytest.mark.parametrize(("backend", "peak", "left"), [("native", 70, 20), ("cudaMallocAsync", 96, 32)])
def test_on_cuda_what_was_asked_for_counts(monkeypatch: pytest.MonkeyPatch, backend: str, peak: int, left: int) -> None:
    """Given the allocator's counters before and after a call, then bytes that were asked for, where it counts those."""
    before = {"requested_bytes.all.current": 100, "allocated_bytes.all.current": 128}
    after = {
        "requested_bytes.all.current": 120,
        "requested_bytes.all.peak": 170,
        "allocated_bytes.all.current": 160,
        "allocated_bytes.all.peak": 224,
    }
    stats = before
    told: list[str] = []

    def action() -> str:
        nonlocal stats
        stats = after
        return "made"

    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: told.append(name))
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: backend)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: stats)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 512)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    monkeypatch.setattr(torch, "empty", lambda *_, device: told.append(f"asked {device}"))
    assert watch(action, "cuda:0") == ("made", Window(peak=peak, left=left, reserved=512))
    assert told == ["synchronize", "empty_cache", "reset_peak_memory_stats", "synchronize", "asked cuda:0"]

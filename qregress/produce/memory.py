"""Bytes, exact and repeatable."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import torch
from torch import nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from qregress.errors import ProduceError
from qregress.quantize.coverage import storages
from qregress.record import Memory

T = TypeVar("T")
#: Time in ns, address and bytes (negative: given back).
Event = tuple[int, int, int]


class Window(msgspec.Struct):
    """What was allocated while something ran: the most at any moment, and what was left at its end, in bytes.

    ``reserved``: the most that CUDA's caching allocator held of the whole device, if it was watched.
    """

    peak: int = 0
    left: int = 0
    reserved: int | None = None

    def without(self, made: int, device: str) -> Window:
        """The same without what was made, which lies on the CPU: on a CPU it is no memory of the pipeline's."""
        return self if device.startswith("cuda") else Window(peak=self.peak, left=self.left - made)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Reference cycles are freed when the collector happens to run; keep it from deciding the peak."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def watch(action: Callable[[], T], device: str, parts: Mapping[str, nn.Module] | None = None) -> tuple[T, Window]:
    """Run something and say what it allocated on the device beside what was there before.

    ``parts``: components whose weights it may replace, as layerwise casting does with each in every call: what those
    took before is taken off as soon as it is given back.
    """
    return _watch_cuda(action, device) if device.startswith("cuda") else _watch_cpu(action, parts or {})


def _watch_cuda(action: Callable[[], T], device: str) -> tuple[T, Window]:
    """From the caching allocator's own counters, cached blocks given back first.

    What was asked for, not the blocks that it lies in: which of those is larger depends on what was there before.
    """
    with _no_collector():
        torch.cuda.synchronize(device)
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - else whichever cell comes first holds them
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = _requested(device, "current")
        result = action()
        gc.collect()
        torch.cuda.synchronize(device)
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - a process' scratch, the same for every cell
        peak, reserved = _requested(device, "peak") - before, torch.cuda.max_memory_reserved(device)
        _ = torch.empty(1, device=device)  # what another stream used is given up as soon as something is asked for
        del _
        left = _requested(device, "current") - before
        return result, Window(peak=peak, left=left, reserved=reserved)


def _requested(device: str, which: str) -> int:
    """Bytes that tensors asked for; of ``cudaMallocAsync``, which does not count those, what it gave them."""
    counter = "requested_bytes" if torch.cuda.get_allocator_backend() == "native" else "allocated_bytes"
    return int(torch.cuda.memory_stats(device)[f"{counter}.all.{which}"])


def _watch_cpu(action: Callable[[], T], parts: Mapping[str, nn.Module]) -> tuple[T, Window]:
    """Add up the CPU allocator's events.

    Their sum is the same byte count every time, where a process's resident size is not; it costs about 5 % of the time.
    """
    before = stored_at(parts, "cpu")
    with _no_collector(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = action()
        gc.collect()  # what only a cycle holds is not left
    kineto = profiler.profiler
    if kineto is None or kineto.kineto_results is None:
        raise ProduceError("torch's profiler returned no events; cannot measure memory")
    events = sorted(_allocations(kineto.kineto_results.experimental_event_tree()))
    return result, _window(events, before, stored_at(parts, "cpu"))


def _allocations(tree: list[Any]) -> Iterator[Event]:
    """Every event of the CPU's allocator."""
    waiting = list(tree)
    while waiting:
        event = waiting.pop()
        waiting.extend(event.children)
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu":
            yield event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size


def _window(events: Iterable[Event], before: dict[int, int], after: Iterable[int] = ()) -> Window:
    """Count blocks that were allocated within the window, and weights from ``before`` it (address -> bytes) as freed.

    No other block from before it: the profiler knows a block's size by its address, and from one window to the next it
    keeps addresses that were given back in between, so that a later block at such an address seems to give back bytes
    that it never had. Of a block that was allocated in no window it tells nothing; a weight in such a one that is not
    at the addresses ``after`` any more is taken off what is left. When it was given back is not known: the peak has it.
    """
    window, alive, weights = Window(), dict[int, int](), dict(before)
    for _, address, nbytes in events:
        if nbytes > 0:
            alive[address] = nbytes
            window.left += nbytes
        elif address in alive:
            window.left -= alive.pop(address)
        else:
            window.left -= weights.pop(address, 0)
        window.peak = max(window.peak, window.left)
    still = {*after} - alive.keys()
    window.left -= sum(nbytes for address, nbytes in weights.items() if address not in still)
    return window


def stored_at(modules: Mapping[str, nn.Module], device: str) -> dict[int, int]:
    """Storage address -> bytes of all components on a device."""
    found: dict[int, int] = {}
    for module in modules.values():
        found.update(storages(module, torch.device(device).type))
    return found


def stored(modules: Mapping[str, nn.Module], device: str) -> tuple[int, dict[str, int]]:
    """Bytes that all components together store on a device, and each alone; shared storages count once in all."""
    everything: dict[int, int] = {}
    each = {}
    for name, module in modules.items():
        found = storages(module, torch.device(device).type)
        each[name] = sum(found.values())
        everything.update(found)
    return sum(everything.values()), each


class Loaded(msgspec.Struct, frozen=True):
    """Bytes that copying and quantizing took: at most (``peak``), and kept beside what the components store (``kept``).

    The float weights that a library keeps alive, say: they are in no parameter list, but were allocated.
    """

    peak: int
    kept: int


def loaded(parts: dict[str, nn.Module], changed: dict[str, nn.Module], loading: Window, device: str) -> Loaded:
    """Right after quantizing: as soon as components are moved to the host, the device does not tell any more.

    ``parts``: all components; ``changed``: those that were copied and quantized while ``loading`` was watched.
    """
    total, made = stored(parts, device)[0], stored(changed, device)[0]
    return Loaded(peak=total - made + loading.peak, kept=max(0, loading.left - made))


def account(parts: dict[str, nn.Module], running: Window, device: str, loading: Loaded | None = None) -> Memory:
    """The cell alone: what its components store, what else quantizing and running left allocated, and the peak on top.

    ``parts``: all components. The reference's weights may be on the device meanwhile; they are in no number.
    """
    total, each = stored(parts, device)
    kept = loading.kept if loading is not None else 0
    return Memory(
        storage_bytes=total,
        static_bytes=total + kept + max(0, running.left),
        peak_bytes=total + kept + running.peak,
        reserved_bytes=running.reserved,
        load_peak_bytes=loading.peak if loading is not None else None,
        components=each,
    )

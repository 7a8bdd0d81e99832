"""Weights that are moved aside, on a CPU: what is moved and put back is the same there."""

from __future__ import annotations

import ctypes
import threading
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from qregress.produce.residence import HostCopies, _storages


def two() -> tuple[nn.Linear, nn.Sequential]:
    """Two modules that share one weight."""
    mine, other = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    other[1].weight = mine.weight
    return mine, other


def test_what_is_emptied_comes_back() -> None:
    """Given weights, when they are emptied and filled, then nothing is behind them meanwhile, and then the same."""
    _, other = two()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    copies, storages = HostCopies("cpu"), _storages([other], "cpu")
    for _ in range(2):  # a second time from the same copies
        copies.empty(storages)
        assert sum(storage.nbytes() for storage in storages) == 0
        copies.fill(storages)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> HostCopies:
    """As for a GPU, with storages of a CPU."""
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Cudart(2))  # which locks nothing
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "_sleep", lambda _: None)
    monkeypatch.setattr("qregress.produce.residence.synchronize", lambda _: None)
    monkeypatch.setattr("qregress.produce.residence._storages", lambda modules, _: _storages(modules, "cpu"))
    return HostCopies("cuda:0")


def test_what_is_shared_stays(on_cuda: HostCopies) -> None:
    """Given a weight that the kept module shares, then it alone stays; copies of what is gone are forgotten."""
    mine, other = two()
    with on_cuda.aside([other], [mine]):
        sizes = {name: value.untyped_storage().nbytes() for name, value in other.state_dict().items()}
    assert {name for name, size in sizes.items() if size} == {"1.weight"}
    assert len(on_cuda._copies) == 3
    on_cuda.forget_all_but([other[0]])
    assert len(on_cuda._copies) == 2
    on_cuda.forget_all_but([])
    assert not on_cuda._copies


def test_copies_that_were_begun_are_waited_for(on_cuda: HostCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given copies that another thread makes, then what is moved aside waits for them, and makes none again."""
    made: list[int] = []
    begun, go, make = threading.Event(), threading.Event(), on_cuda._make

    def slowly(storages: list[torch.UntypedStorage]) -> None:
        begun.set()
        assert go.wait(10)
        make(storages)
        made.append(len(storages))

    monkeypatch.setattr(on_cuda, "_make", slowly)
    module = nn.Linear(4, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    on_cuda.begin([module])
    assert begun.wait(10)
    assert not made
    threading.Timer(0.1, go.set).start()
    with on_cuda.aside([module], []):
        assert made == [2]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_copies_that_were_begun_and_failed(on_cuda: HostCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a host without memory for them, then that is the error of what needs them, and of nothing else."""
    tried: list[int] = []

    def fail(storages: list[torch.UntypedStorage]) -> None:
        tried.append(len(storages))
        raise MemoryError

    monkeypatch.setattr(on_cuda, "_make", fail)
    module = nn.Linear(4, 4)
    on_cuda.begin([module])
    on_cuda.forget_all_but([])
    with on_cuda.aside([], []):
        assert tried == [2]
    with pytest.raises(MemoryError), on_cuda.aside([module], []):
        pass
    assert tried == [2, 2]


def test_after_an_error_the_device_stays_as_it_was(on_cuda: HostCopies) -> None:
    """Given memory that runs out meanwhile, then what was moved aside takes no part of what is said to be there."""
    mine, other = two()
    with pytest.raises(torch.OutOfMemoryError), on_cuda.aside([other], [mine]):
        raise torch.OutOfMemoryError
    assert other.state_dict()["0.weight"].untyped_storage().nbytes() == 0


class Cudart:
    """What of the runtime is asked for; ``error``: its answer."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.locked: dict[int, int] = {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: D102, N802
        assert address % 4096 == 0
        assert flags == 0
        if not self.error:
            self.locked[address] = size
        return self.error

    def cudaHostUnregister(self, address: int) -> None:  # noqa: D102, N802
        ctypes.string_at(address, self.locked.pop(address))  # still mapped, or this process ends here


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> Cudart:
    """A runtime that locks whatever it is told."""
    found = Cudart(0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: found)
    return found


def test_pages_of_copies_are_locked_as_long_as_they_live(on_cuda: HostCopies, cudart: Cudart) -> None:
    """Given weights that are moved aside, then their copies' pages are locked until they are dropped."""
    module = nn.Linear(1024, 512)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with on_cuda.aside([module], []):
        assert list(cudart.locked.values()) == [2**21 + 2048]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert len(cudart.locked) == 1
    on_cuda.forget_all_but([])
    assert not cudart.locked


def test_pages_are_shared_up_to_a_size(on_cuda: HostCopies, cudart: Cudart, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more weights than share pages, then others have their own, and are given back when theirs are forgotten."""
    monkeypatch.setattr("qregress.produce.residence._SHARED", 2**21 + 4096)
    first, second = nn.Linear(1024, 512), nn.Sequential(nn.Linear(3, 1), nn.Linear(1024, 513))
    before = {name: value.clone() for name, value in second.state_dict().items()}
    for _ in range(2):  # the second time from the same copies
        with on_cuda.aside([first, second], []):
            # Two threads lock them, in whichever order.
            assert sorted(cudart.locked.values()) == [2560, 2**21 + 2048 + 512 + 512, 2**21 + 4096]
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())
    on_cuda.forget_all_but([second[0]])
    assert list(cudart.locked.values()) == [2**21 + 2048 + 512 + 512]
    on_cuda.forget_all_but([])
    assert not cudart.locked


def test_pages_that_cannot_be_locked(on_cuda: HostCopies, cudart: Cudart, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a system that locks no more pages, then copies serve as they are, and its error is cleared each time."""
    cudart.error = 2
    kernels: list[int] = []

    def kernel(cycles: int) -> None:
        kernels.append(cycles)
        raise RuntimeError("CUDA error: out of memory")  # of the call before

    module = nn.Linear(1024, 512)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    monkeypatch.setattr(torch.cuda, "_sleep", kernel)
    with on_cuda.aside([module], []):
        assert kernels == [1]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    on_cuda.forget_all_but([])

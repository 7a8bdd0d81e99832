"""Weights that are moved aside, on a CPU: what is moved and put back is the same there."""

from __future__ import annotations

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
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
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


def test_after_an_error_the_device_stays_as_it_was(on_cuda: HostCopies) -> None:
    """Given memory that runs out meanwhile, then what was moved aside takes no part of what is said to be there."""
    mine, other = two()
    with pytest.raises(torch.OutOfMemoryError), on_cuda.aside([other], [mine]):
        raise torch.OutOfMemoryError
    assert other.state_dict()["0.weight"].untyped_storage().nbytes() == 0


@pytest.mark.parametrize("error", [0, 2])
def test_pages_of_large_copies_are_locked(monkeypatch: pytest.MonkeyPatch, on_cuda: HostCopies, error: int) -> None:
    """Given weights of megabytes, then their copies' pages are locked until they are dropped; where not, they serve."""
    locked: set[int] = set()

    class Cudart:
        def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
            assert (size, flags) == (2**21, 0)
            locked.add(address)
            return error

        def cudaHostUnregister(self, address: int) -> None:  # noqa: N802
            locked.remove(address)

    def kernel(*_: object, device: str) -> None:
        assert device == "cuda:0"
        raise RuntimeError("CUDA error: out of memory")  # of the call before

    monkeypatch.setattr(torch.cuda, "cudart", Cudart)
    monkeypatch.setattr(torch, "zeros", kernel)
    large = nn.Linear(1024, 512)
    before = {name: value.clone() for name, value in large.state_dict().items()}
    with on_cuda.aside([large], []):
        assert len(locked) == 1  # the weight's, not the bias'
    assert all(torch.equal(value, before[name]) for name, value in large.state_dict().items())
    on_cuda.forget_all_but([])
    assert len(locked) == (1 if error else 0)

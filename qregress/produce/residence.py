"""What else lies on a CUDA device is moved to the host while a cell's memory is measured, so that the cell is alone."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple

import torch
from torch import nn

from qregress.produce.timing import Spent, synchronize
from qregress.quantize.coverage import data_of, inner_tensors

#: From so many bytes on huge pages are asked for: touched first in half the time there, and in three times as long at
#: 2 MiB, which is hardly ever aligned to one.
_LARGE = 2**25
#: Copies share pages up to so many bytes, as a denoiser has hundreds of small weights: with pages of their own, each
#: locked by itself, those of 1.2 GiB took 1.2 s to be moved aside first on an H200, and a T5 of 10.7 GiB 1.4 s. What
#: shares pages is given back together, and none of it is locked where the system locks no more: so it is not all.
_SHARED = 2**30
#: Every page, and so many bytes in each that torch has all threads touch them: one for each 32,768.
_TOUCHED = 256
#: Each begins where the device's own allocations may begin.
_ALIGNED = 512


class HostCopies:
    """Unquantized weights of a device, copied to the host once, as they never change."""

    def __init__(self, device: str, spent: Spent | None = None) -> None:
        self._device = _numbered(device)
        self._spent = spent or Spent()
        self._copies: dict[int, _Copy] = {}
        self._threads = ThreadPoolExecutor(2)  # one locks pages while the other touches the next ones
        self._begun: list[Future[None]] = []

    def begin(self, others: Iterable[nn.Module]) -> None:
        """Copy what ``others`` hold while something else is done, which must leave them as they are.

        The first touch of pages and locking them take longer than all that follows: a second or two for a T5. Whatever
        is asked of the copies next waits for it, and until then nothing may change them.
        """
        if self._device.startswith("cuda"):
            self._wait()
            self._begun = self._copying(_storages(others, self._device))

    @contextmanager
    def aside(self, others: Iterable[nn.Module], kept: Iterable[nn.Module]) -> Iterator[None]:
        """Free the device of what ``others`` hold and ``kept`` does not share; it is back afterwards, at any address.

        The tensors stay what they are, with nothing behind them: none may be used meanwhile. Does nothing on a CPU.
        After an error they stay so: whoever says what did not fit must find the device as it was, and what has met an
        error is not used again.
        """
        if not self._device.startswith("cuda"):
            yield
            return
        with self._spent.on("aside"):
            used = {storage.data_ptr() for storage in _storages(kept, self._device)}
            free = [storage for storage in _storages(others, self._device) if storage.data_ptr() not in used]
            self.empty(free)
            torch.cuda.empty_cache()
        yield
        with self._spent.on("aside"):
            self.fill(free)

    def empty(self, storages: Sequence[torch.UntypedStorage]) -> None:
        """Leave nothing behind some storages, whose bytes are kept."""
        self._wait()
        for copying in self._copying(storages):
            copying.result()
        synchronize(self._device)
        for storage in storages:
            storage.resize_(0)

    def fill(self, storages: Sequence[torch.UntypedStorage]) -> None:
        """Put back what was behind them."""
        for storage in storages:
            host = self._copies[_key(storage)].host
            storage.resize_(host.numel())
            _bytes_of(storage).copy_(host, non_blocking=True)
        synchronize(self._device)

    def forget_all_but(self, loaded: Iterable[nn.Module]) -> None:
        """Copies of what is not loaded any more would keep it on the device."""
        self._wait()
        if not self._copies:
            return
        keys = {_key(storage) for storage in _storages(loaded, self._device)}
        self._copies = {key: copy for key, copy in self._copies.items() if key in keys}

    def _wait(self) -> None:
        """For what was begun. What it could not copy is tried again when it is needed, and is an error then."""
        begun, self._begun = self._begun, []
        wait(begun)
        synchronize(self._device)  # pages stay until they are written

    def _copying(self, storages: Sequence[torch.UntypedStorage]) -> list[Future[None]]:
        """Make those copies that are not there yet."""
        missing = [storage for storage in storages if _key(storage) not in self._copies]
        return [self._threads.submit(self._make, part) for part in _parts(missing)]

    def _make(self, storages: Sequence[torch.UntypedStorage]) -> None:
        """Copies of some storages, in pages that they share."""
        pages = _pages(sum(map(_room, storages)))
        pages[::_TOUCHED].zero_()  # the first touch of so many pages takes longer than the copy
        start, cuda = 0, self._device.startswith("cuda")
        with torch.cuda.device(self._device) if cuda else nullcontext():  # each thread has a current one of its own
            if cuda:
                _lock(pages)
            for storage in storages:
                host = pages[start : start + storage.nbytes()]
                self._copies[_key(storage)] = _Copy(storage, host.copy_(_bytes_of(storage), non_blocking=True), pages)
                start += _room(storage)


class _Copy(NamedTuple):
    """Of a storage: its bytes, uint8, and all of the pages that they are in, which are locked as long as those live."""

    storage: torch.UntypedStorage
    host: torch.Tensor
    pages: torch.Tensor


def _parts(storages: Sequence[torch.UntypedStorage]) -> Iterator[list[torch.UntypedStorage]]:
    """Those whose copies share pages."""
    part: list[torch.UntypedStorage] = []
    taken = 0
    for storage in storages:
        if part and taken + _room(storage) > _SHARED:
            yield part
            part, taken = [], 0
        part.append(storage)
        taken += _room(storage)
    if part:
        yield part


def _room(storage: torch.UntypedStorage) -> int:
    """Bytes that a copy takes of its pages."""
    return -(-storage.nbytes() // _ALIGNED) * _ALIGNED


def _pages(nbytes: int) -> torch.Tensor:
    """uint8 ``[nbytes]`` in pages of its own: of two tensors in one page, the second could not be locked."""
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= _LARGE:
        with suppress(AttributeError, OSError):  # not every system has them
            pages.madvise(mmap.MADV_HUGEPAGE)
    found: torch.Tensor = torch.frombuffer(pages, dtype=torch.uint8)
    return found


def _lock(host: torch.Tensor) -> None:
    """Lock pages as long as this tensor lives: they are then copied at the link's speed, on an H200 six times faster.

    Where the system locks no more pages, it stays as it is.
    """
    cudart, address = torch.cuda.cudart(), host.data_ptr()
    if int(cudart.cudaHostRegister(address, host.numel(), 0)) == 0:
        weakref.finalize(host, cudart.cudaHostUnregister, address).atexit = False  # the driver may be gone by then
    else:
        with suppress(RuntimeError):
            torch.cuda._sleep(1)  # noqa: SLF001 - the next kernel reports an error that nobody has asked for, and clears it


def _key(storage: torch.UntypedStorage) -> int:
    """Which storage it is: its address changes, and other objects mean the same."""
    return int(storage._cdata)  # noqa: SLF001


def _storages(modules: Iterable[nn.Module], device: str) -> list[torch.UntypedStorage]:
    """Each once, of parameters and buffers that lie on a device."""
    found: dict[int, torch.UntypedStorage] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            for inner in inner_tensors(data_of(tensor)):
                storage = inner.untyped_storage()
                if inner.device == torch.device(device) and storage.nbytes():
                    found[storage.data_ptr()] = storage
    return list(found.values())


def _numbered(device: str) -> str:
    """With the index that tensors' devices have."""
    return f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    """uint8 ``[bytes]``, where the storage lies."""
    found: torch.Tensor = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return found.set_(storage)

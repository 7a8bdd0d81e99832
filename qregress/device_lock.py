"""One measuring process per device: what shares a device with another run is no measurement. No torch."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def device_lock(device: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the device among this user's processes on this machine; ``on_wait`` is called where it is taken.

    The system ends the lock with its process, however that ends, and the file stays: were it removed, a third process
    could lock a new one beside the second. Where no file can be opened or locked, runs are not kept apart.
    """
    handle = _open(lock_path(device))
    try:
        if handle is not None:
            _wait(handle, on_wait)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        # Others may write to that folder too, and so leave a link there.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    return None


def _wait(handle: int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return  # a file system without locks


def lock_path(device: str) -> Path:
    """The file of one user and device; ``cuda`` is ``cuda:0``, counted among all that the machine has."""
    kind, _, index = device.partition(":")
    name = kind
    if kind == "cuda":
        visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
        number = int(index or 0)
        name += f"-{visible[number] if number < len(visible) and visible[number] else number}"
    return Path(tempfile.gettempdir()) / f"qregress-{os.getuid()}-{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.lock"

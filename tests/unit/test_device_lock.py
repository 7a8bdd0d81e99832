"""One process per device, over process borders, and no harm where that cannot be had."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qregress.device_lock import device_lock, lock_path

_HOLDER = """
import sys
from qregress.device_lock import device_lock
with device_lock(sys.argv[1], lambda: print("waits", flush=True)):
    print("has it", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system's temp directory of the test's own, for this process and others, in which no device is hidden."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@contextmanager
def holder(device: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that takes a device, and holds it until it reads a line or is killed."""
    command = [sys.executable, "-c", _HOLDER, device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_exclude_each_other() -> None:
    """Given a process that has a device, when another wants it, then it waits, and has it when the first lets go."""
    with holder("cpu") as first:
        assert says(first) == "has it"
        with holder("cpu") as second:
            assert says(second) == "waits"
            first.communicate("\n")
            assert says(second) == "has it"


def test_a_killed_process_holds_nothing() -> None:
    """Given a process that was killed while it had the device, then the device is free."""
    with holder("cpu") as first:
        assert says(first) == "has it"
        first.kill()
        first.wait()
    waited: list[None] = []
    with device_lock("cpu", lambda: waited.append(None)):
        assert waited == []


def test_other_devices_are_free() -> None:
    """Given a process that has one device, then another device is not waited for."""
    with holder("cuda:1") as first:
        assert says(first) == "has it"
        with holder("cuda:0") as second:
            assert says(second) == "has it"


def test_names() -> None:
    """Given names of one device, then they are one lock; the CPU is another."""
    assert lock_path("cuda") == lock_path("cuda:0")
    assert len({lock_path(device) for device in ("cpu", "cuda", "cuda:1")}) == 3


def test_hidden_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ``CUDA_VISIBLE_DEVICES``, then a device is locked under the name that all processes know it by."""
    second = lock_path("cuda:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,MIG-GPU-0/1/2")
    assert lock_path("cuda") == second
    assert lock_path("cuda:1").parent == second.parent
    assert "MIG-GPU-0_1_2" in lock_path("cuda:1").name


@pytest.mark.parametrize("what", ["no folder", "a folder", "a link"])
def test_nowhere_to_lock(what: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a temp directory where the file cannot be, then runs go on without a lock, and no link is followed."""
    path = lock_path("cpu")
    if what == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to(temporary / "victim")
    entered = []
    with device_lock("cpu", lambda: None):
        entered.append(what)
    assert entered == [what]
    assert not (temporary / "victim").exists()

"""Stores and file systems to test with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qregress.store.accept import accept
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from tests.store_making import REASON, cells_of, write_matrix_run

Mount = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of a reference and two settings."""
    return write_matrix_run(tmp_path / "run", 2)


@pytest.fixture
def store(tmp_path: Path, run: Path) -> Store:
    """The run, accepted."""
    store = Store(tmp_path / "baselines")
    with FinishedRun(run) as finished:
        accept(store, finished, cells_of(run), REASON)
    return store


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system, of a number of bytes or read-only; skips where that is not allowed."""
    target = tmp_path / "mounted"
    target.mkdir()

    def act(*options: str) -> Path:
        command = shutil.which("mount")
        if command is None:
            pytest.skip("there is no mount here")
        done = subprocess.run(
            [command, "-t", "tmpfs", "-o", ",".join(options), "qregress-test", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"may not mount a file system here: {done.stderr.strip()}")
        return target

    yield act
    with suppress(subprocess.CalledProcessError, FileNotFoundError):
        subprocess.run([shutil.which("umount") or "umount", str(target)], capture_output=True, check=True)


@pytest.fixture
def read_only(mount: Mount) -> Callable[[Path], Path]:
    """A copy of a folder on a file system that cannot be written, which the superuser cannot either."""

    def act(source: Path) -> Path:
        root = mount("size=8m")
        shutil.copytree(source, root / source.name)
        mount("remount", "ro")
        return root / source.name

    return act

"""How long a session holds its device. What it makes of cells is tested with the plugin."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qregress import config
from qregress.device_lock import lock_path
from qregress.matrix import Cell
from qregress.produce.client import OnEvent
from qregress.produce.protocol import Options
from qregress.session import Session
from qregress.store.baselines import Store
from qregress.store.run import RunFolder
from tests.making import make_record, write_project

Start = Callable[[str], Session]


class Producer:
    """Leaves a record of each cell."""

    def __init__(self, options: Options, _log: Path, _deadline_s: float) -> None:
        self._folder = RunFolder(Path(options.out))

    def produce(self, cell: Cell, _resolve: tuple[float, ...], _on_event: OnEvent) -> None:
        """One record."""
        self._folder.write_record(make_record(cell.id))

    def measure_noise(self, _cell: Cell, _on_event: OnEvent) -> None:
        """Is not asked for."""
        raise AssertionError

    def find_blame(self, _cell: Cell, _prompts: tuple[int, ...], _on_event: OnEvent) -> None:
        """Neither."""
        raise AssertionError

    def close(self) -> None:
        """Has nothing to end."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A session on a device."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    loaded = config.load(write_project(tmp_path))

    def make(device: str) -> Session:
        return Session(
            loaded,
            device,
            tmp_path / "out",
            Store(tmp_path / "baselines"),
            run_id="1",
            on_event=lambda _: None,
            start=Producer,
        )

    return make


def is_free(device: str) -> bool:
    """Whether another process could measure there."""
    with lock_path(device).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize(("device", "between"), [("cpu", True), ("cuda:0", False)])
def test_a_gpu_is_held_while_weights_are_on_it(device: str, between: bool, start: Start) -> None:
    """Given a cell that has run, then a CPU is free for others; a GPU is not before the session is closed."""
    session = start(device)
    for cell in session.config.cells()[:2]:
        session.verdict(cell)
        assert is_free(device) == between
    session.close()
    assert is_free(device)


def test_a_gpu_is_free_after_a_crash(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a worker that is gone, then nothing of it is on the GPU, and others may have it."""
    session = start("cuda:0")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Producer, "produce", fail)
    with pytest.raises(KeyboardInterrupt):
        session.verdict(session.config.cells()[0])
    assert is_free("cuda:0")

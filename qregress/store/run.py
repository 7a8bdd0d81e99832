"""The folder of one run: records, images and ``run.json``. Every write is atomic, so that a kill leaves old or new."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qregress.errors import ConfigError, Refused
from qregress.record import CellResult, Record, Run, T, encode, read
from qregress.store.atomic import locked, write_atomic

_MARK = ".qregress-run"
_PROBE = ".qregress-probe-"
_STARTED = ".started"
_RECORD = "record.json"
_RESULT = "result.json"
_HINT = "; choose another folder with --qregress-out"


class RunFolder:
    """Paths inside a run's folder, and what is written there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._run_id: str | None = None

    def start(self, run_id: str, *, keep: bool = False) -> None:
        """Make it empty for a new run; for a process that joins the same run (xdist) do nothing.

        ``keep``: leave what the run that was there has measured, for ``store/resume.py``; its verdicts go. A folder
        that is not a run's is never emptied. It has a valid ``run.json`` from here on, whatever ends the run.
        Raises ``ConfigError`` with one line.
        """
        self.check()
        self._run_id = run_id
        with self._explained():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.root.parent):
                mark = self.root / _MARK
                if self.belongs_to(run_id):
                    return
                self.root.mkdir(exist_ok=True)
                for path in self._judged() if keep else {*self.root.iterdir()} - {mark}:  # a kill leaves a run's folder
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                mark.write_text(run_id, encoding="utf-8")
                (self.root / ".gitignore").write_text("*\n", encoding="utf-8")
                self.write_run(Run(started=now()))

    def _judged(self) -> list[Path]:
        """What says of cells that they were judged, or begun."""
        return [path for name in (_RESULT, _STARTED) for path in self.root.glob(f"cells/*/*/*/{name}")]

    def belongs_to(self, run_id: str) -> bool:
        """Whether that run has started here, and no other one since."""
        mark = self.root / _MARK
        return mark.exists() and mark.read_text(encoding="utf-8") == run_id

    @contextlib.contextmanager
    def held_by(self, run_id: str) -> Iterator[bool]:
        """Whether it is that run's, in whose folder no other run starts until this has ended.

        By the lock of ``start``: that of ``owned`` may be held by a cell that is still measured, as after ``-x``.
        """
        if not self.belongs_to(run_id):
            yield False
            return
        with locked(self.root.parent):
            yield self.belongs_to(run_id)

    def check(self) -> None:
        """Whether ``start`` can work; leaves everything as it is. Raises ``ConfigError`` with one line."""
        with self._explained():
            there = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
            if not there.is_dir():
                which = "" if there == self.root else f"{there} "
                raise ConfigError(f"{self.root}: {which}is a file, not a folder{_HINT}")
            if not os.access(there, os.W_OK | os.X_OK):
                raise ConfigError(f"{self.root}: cannot write results there: {there} is not writable{_HINT}")
            if there == self.root and not (self.root / _MARK).exists() and any(map(_foreign, self.root.iterdir())):
                raise ConfigError(f"{self.root}: holds other files; name an empty folder or one of an earlier run")
            Path(tempfile.mkdtemp(prefix=_PROBE, dir=there)).rmdir()  # root may write anywhere, says os.access

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{self.root}: cannot write results there: {reason}{_HINT}") from None

    def cell(self, cell_id: str) -> Path:
        """The folder of one cell."""
        return self.root / "cells" / cell_id

    def record(self, cell_id: str) -> Record | None:
        """The record of one cell, ``None`` where there is none."""
        return _maybe(self.cell(cell_id) / _RECORD, Record)

    def has_record(self, cell_id: str) -> bool:
        """Whether there is one, if it can be read or not."""
        return (self.cell(cell_id) / _RECORD).exists()

    def write_record(self, record: Record) -> None:
        """Keep a record."""
        write_atomic(self.cell(record.id) / _RECORD, encode(record))

    def result(self, cell_id: str) -> CellResult | None:
        """The judged cell, ``None`` where there is none."""
        return _maybe(self.cell(cell_id) / _RESULT, CellResult)

    def write_result(self, result: CellResult) -> None:
        """Keep a judged cell."""
        write_atomic(self.cell(result.id) / _RESULT, encode(result))

    def write_run(self, run: Run) -> None:
        """Keep ``run.json``."""
        write_atomic(self.run_json, encode(run))

    @property
    def run_json(self) -> Path:
        """The file that holds all judged cells."""
        return self.root / "run.json"

    @property
    def logs(self) -> Path:
        """Where workers' output goes."""
        return self.root / "logs"

    def mark_started(self, cell_id: str) -> None:
        """A cell is about to be produced. Raises ``Refused`` where that has begun before in this run."""
        mark = self.cell(cell_id) / _STARTED
        mark.parent.mkdir(parents=True, exist_ok=True)
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            why = "interrupted before it had a verdict, and not tried again in the same run"
            raise Refused(f"{cell_id}: {why}") from None

    def clear(self, cell_id: str) -> None:
        """Forget what an earlier part of this run left of a cell."""
        shutil.rmtree(self.cell(cell_id), ignore_errors=True)

    def was_started(self, cell_id: str) -> bool:
        """Whether its production has begun in this run."""
        return (self.cell(cell_id) / _STARTED).exists()

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """One process of this run at a time writes here, as under ``pytest -n``.

        Raises ``Refused`` where another run has taken over the folder meanwhile: its verdicts are not this one's.
        """
        with locked(self.root):
            if self._run_id is not None and not self.belongs_to(self._run_id):
                raise Refused(f"{self.root}: another run has taken over this folder; give each run its own{_HINT}")
            yield


def now() -> str:
    """The time for a record, in seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _foreign(path: Path) -> bool:
    """Not a look of another process of this run at whether it can write here."""
    return not path.name.startswith(_PROBE)


def _maybe(path: Path, kind: type[T]) -> T | None:
    return read(path, kind) if path.exists() else None

"""Many files changed as one: all of a change is there after a kill, or nothing of it.

New contents are written beside the old ones first, then a plan that names every move and removal. The plan's own
rename is the moment of decision: without it, what lies in the journal is rubbish; with it, whoever opens the folder
next finishes what it says. All functions but ``pending`` and ``decided`` expect the caller to hold the folder's lock.
Against a kill, not against a loss of power: nothing is forced to the disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from qregress.store.atomic import write_atomic

#: Inside the folder, as a rename must not leave its file system.
FOLDER = ".journal"
_PLAN = "plan"


class DamagedPlanError(Exception):
    """A plan is not what was written: carried out, it would move files to wherever its flipped bits point."""


class _Plan(msgspec.Struct, frozen=True):
    """``puts``: target -> name inside the journal. Paths are relative to the folder, with slashes."""

    puts: dict[str, str]
    drops: tuple[str, ...]


def pending(root: Path) -> bool:
    """Whether something was begun here and not finished."""
    return (root / FOLDER).exists()


def decided(root: Path) -> bool:
    """Whether what was begun is to be finished: the old contents are then no longer whole."""
    return (root / FOLDER / _PLAN).exists()


def try_out(root: Path) -> None:
    """Make something and remove it; a kill leaves what any killed change leaves. Raises ``OSError``."""
    recover(root)
    (root / FOLDER).mkdir()
    (root / FOLDER).rmdir()


def commit(root: Path, puts: Mapping[str, bytes], drops: Iterable[str] = ()) -> None:
    """Write and remove files. Raises ``OSError``, and then nothing has changed, or ``recover`` will change it all."""
    recover(root)
    gone = tuple(drops)
    _check_writable(root, [*puts, *gone])
    journal = root / FOLDER
    made: list[Path] = []
    try:
        journal.mkdir()
        staged = {target: f"{number:05d}" for number, target in enumerate(puts)}
        for target, name in staged.items():
            (journal / name).write_bytes(puts[target])
            _make_folders((root / target).parent, made)  # now, while a full disk can still be taken back
        write_atomic(journal / _PLAN, _sealed(_Plan(staged, gone)))
    except BaseException:
        # An interruption may come between the plan's rename and its return: then it stands.
        if not decided(root):
            shutil.rmtree(journal, ignore_errors=True)
            for folder in reversed(made):
                _drop_if_empty(folder)
        raise
    recover(root)


def recover(root: Path) -> bool:
    """Finish what a plan says, or clear away what has none; returns whether there was anything.

    Raises ``OSError``, ``DamagedPlanError``.
    """
    journal = root / FOLDER
    if not journal.exists():
        return False
    if decided(root):
        _carry_out(root, _opened((journal / _PLAN).read_bytes()))
        (journal / _PLAN).unlink()
    else:
        for folder, _, _ in os.walk(root, topdown=False):  # made for what never came; no change leaves an empty one
            if Path(folder) != root:
                _drop_if_empty(Path(folder))
    if journal.exists():  # empty, it went with the other folders
        shutil.rmtree(journal)
    return True


def _carry_out(root: Path, plan: _Plan) -> None:
    for target, name in plan.puts.items():
        staged = root / FOLDER / name
        if staged.exists():  # else it has been moved already
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            staged.replace(root / target)
    for target in plan.drops:
        (root / target).unlink(missing_ok=True)
        for folder in (root / target).parents:
            if folder == root or not _drop_if_empty(folder):
                break


def _sealed(plan: _Plan) -> bytes:
    data = msgspec.json.encode(plan)
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def _opened(data: bytes) -> _Plan:
    sha256, _, plan = data.partition(b"\n")
    if hashlib.sha256(plan).hexdigest().encode() != sha256:
        raise DamagedPlanError
    return msgspec.json.decode(plan, type=_Plan)


def _check_writable(root: Path, names: Iterable[str]) -> None:
    """What would stop a plan half-way shows before there is one. Raises ``OSError``."""
    for folder in {(root / name).parent for name in names}:
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)}: {there}", str(there))
    for name in names:
        if (root / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{os.strerror(errno.EISDIR)}: {root / name}", str(root / name))


def _make_folders(folder: Path, made: list[Path]) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        path.mkdir()
        made.append(path)


def _drop_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:  # by whoever was killed here before
        return True
    except OSError:
        return False
    return True

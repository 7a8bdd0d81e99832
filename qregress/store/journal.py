"""Many files changed as one: all of a change is there after a kill, or nothing of it.

New contents are written beside the old ones first, then a plan that names every move and removal. The plan's own
rename is the moment of decision: without it, what lies in the journal is rubbish; with it, whoever opens the folder
next finishes what it says. All functions but ``pending`` expect the caller to hold the folder's lock. Against a kill,
not against a loss of power: nothing is forced to the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from qregress.store.atomic import write_atomic

#: Inside the folder, as a rename must not leave its file system.
FOLDER = ".journal"


class _Plan(msgspec.Struct, frozen=True):
    """``puts``: target -> name inside the journal. Paths are relative to the folder, with slashes."""

    puts: dict[str, str]
    drops: tuple[str, ...]


def pending(root: Path) -> bool:
    """Whether something was begun here and not finished."""
    return (root / FOLDER).exists()


def commit(root: Path, puts: Mapping[str, bytes], drops: Iterable[str] = ()) -> None:
    """Write and remove files. Raises ``OSError``, and then nothing has changed, or ``recover`` will change it all."""
    recover(root)
    journal = root / FOLDER
    made: list[Path] = []
    try:
        journal.mkdir()
        staged = {target: f"{number:05d}" for number, target in enumerate(puts)}
        for target, name in staged.items():
            (journal / name).write_bytes(puts[target])
            _make_folders((root / target).parent, made)  # now, while a full disk can still be taken back
        write_atomic(journal / "plan", msgspec.json.encode(_Plan(staged, tuple(drops))))
    except BaseException:
        # An interruption may come between the plan's rename and its return: then it stands.
        if not (journal / "plan").exists():
            shutil.rmtree(journal, ignore_errors=True)
            for folder in reversed(made):
                _drop_if_empty(folder)
        raise
    recover(root)


def recover(root: Path) -> bool:
    """Finish what a plan says, or clear away what has none; returns whether there was anything. Raises ``OSError``."""
    journal = root / FOLDER
    if not journal.exists():
        return False
    plan_file = journal / "plan"
    if plan_file.exists():
        plan = msgspec.json.decode(plan_file.read_bytes(), type=_Plan)
        for target, name in plan.puts.items():
            if (journal / name).exists():  # else it has been moved already
                (root / target).parent.mkdir(parents=True, exist_ok=True)
                (journal / name).replace(root / target)
        for target in plan.drops:
            (root / target).unlink(missing_ok=True)
            for folder in (root / target).parents:
                if folder == root or not _drop_if_empty(folder):
                    break
        plan_file.unlink()
    shutil.rmtree(journal)
    return True


def _make_folders(folder: Path, made: list[Path]) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        made.append(path)


def _drop_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True

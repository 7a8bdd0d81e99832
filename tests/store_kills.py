"""Kill processes that write a store, with SIGKILL, and look at what they leave. Run as a script, by test_kills.py.

Imports once and forks for every trial. Prints one JSON object: how often the old and the new store were found, how
often a kill came inside the write, and what was neither.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec

from qregress import cli
from qregress.store import accept as accepting
from qregress.store import journal
from qregress.store.accept import Reason, accept
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from qregress.store.refresh import Refresh
from qregress.store.refresh import write as refresh_write
from tests.store_making import REASON, cells_of, files, folders, write_matrix, write_matrix_run

Act = Callable[[Path], None]
_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NEW = Reason(by=REASON.by, why="second")


class Project:
    """A configuration, an accepted run and a later one whose every file differs."""

    def __init__(self, root: Path, settings: int) -> None:
        self.root = root
        self.config = write_matrix(root, settings)
        # Without timings: their bootstrap takes most of an accept, and the writing is to be killed.
        self.first = write_matrix_run(root / "first", settings, step=0, timing=None)
        self.second = write_matrix_run(root / "second", settings, step=7, timing=None)
        self.cells = cells_of(self.second)
        self.old = root / "old"
        with FinishedRun(self.first) as run:
            accept(Store(self.old), run, self.cells, REASON)
        with FinishedRun(self.second) as run:
            self.results = [msgspec.structs.replace(result, accepted="changed") for result in run.run.cells]

    def accept(self, store: Path) -> None:
        """``qregress accept``."""
        with FinishedRun(self.second) as run:
            accept(Store(store), run, self.cells, NEW)

    def refresh(self, store: Path) -> None:
        """``--qregress-refresh=all``."""
        how = Refresh("all", NEW.why, proposed=False)
        refresh_write(how, Store(store), self.second, self.results, NEW.by, waived=(), images=True)

    def after(self, act: Act, store: Path) -> dict[str, bytes]:
        """The store after an undisturbed change."""
        act(store)
        return files(store)

    def orphans(self, store: Path) -> tuple[int, str]:
        """``qregress orphans``: its exit code and what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(["orphans", f"--config={self.config}", f"--baselines={store}"])
        return code, said.getvalue()


def forked(act: Callable[[], None], signals: int) -> tuple[int, int]:
    """A child that acts and ends; returns its id and a pipe: a byte when the write begins, closed at its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        os.close(reading)
        commit = journal.commit

        def announced(*arguments: Any) -> None:
            os.write(writing, b"w")
            commit(*arguments)

        if signals:
            setattr(journal, "commit", announced)  # noqa: B010 - mypy takes an assignment for a mistake
        act()
        code = 0
    except BaseException as error:  # noqa: BLE001 - told to whoever reads the test's output
        sys.stderr.write(f"child: {error!r}\n")
    finally:
        os._exit(code)


def finish(child: int, pipe: int, delay: float, *, inside: bool) -> tuple[bool, float]:
    """Kill a child after a delay, from its start or from where it begins to write; whether it was still there."""
    if inside:
        os.read(pipe, 1)
    start = time.perf_counter()
    deadline = start + delay
    while (left := deadline - time.perf_counter()) > 0:
        ready, _, _ = select.select([pipe], [], [], left)
        if ready and os.read(pipe, 1) == b"":  # it ended by itself
            break
    os.kill(child, signal.SIGKILL)
    taken = time.perf_counter() - start
    _, status = os.waitpid(child, 0)
    os.close(pipe)
    return os.WIFSIGNALED(status), taken


def durations(act: Act, source: Path | None, scratch: Path) -> tuple[float, float]:
    """Seconds of an undisturbed change, and of the writing inside it: the median of five."""
    whole: list[float] = []
    inner: list[float] = []
    for number in range(5):
        for inside, kept in ((False, whole), (True, inner)):
            store = scratch / f"timed-{number}"
            if source is not None:
                shutil.copytree(source, store)
            child, pipe = forked(lambda store=store: act(store), 1)  # type: ignore[misc]
            kept.append(finish(child, pipe, 60.0, inside=inside)[1])
            shutil.rmtree(store)
    return sorted(whole)[2], sorted(inner)[2]


def trials(project: Project, act: Act, source: Path | None, count: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Kill so many changes of a store at random moments: half over all of it, half over the writing."""
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    old = files(source) if source is not None else {}
    target = scratch / "target"
    if source is not None:
        shutil.copytree(source, target)
    new = project.after(act, target)
    shared = [name for name in old if new.get(name) == old[name]]
    whole, inner = durations(act, source, scratch)
    found: dict[str, Any] = {"old": 0, "new": 0, "journals": 0, "plans": 0, "killed": 0, "repeated": 0, "wrong": []}
    for number in range(count):
        store = scratch / f"store-{number}"
        if source is not None:
            shutil.copytree(source, store)
        inside = number % 2 == 1
        delay = draw.uniform(0, 1.2 * (inner if inside else whole))  # somewhat beyond: the machine may be busier now
        child, pipe = forked(lambda store=store: act(store), int(inside))  # type: ignore[misc]
        found["killed"] += finish(child, pipe, delay, inside=inside)[0]
        found["journals"] += (store / journal.FOLDER).exists()
        found["plans"] += (store / journal.FOLDER / "plan").exists()
        code, said = project.orphans(store)
        now = files(store)
        told = f"trial {number} of seed {seed}, killed after {delay:.6f} s{' of writing' if inside else ''}"
        if code != 0:
            found["wrong"].append(f"{told}: orphans says {code}: {said}")
        elif now not in (old, new):
            mixed = [name for name in old.keys() | new.keys() if now.get(name) != old.get(name)]
            found["wrong"].append(f"{told}: {len(mixed)} of {len(new)} files are not the old ones: {sorted(mixed)[:3]}")
        elif empty := {name for name in folders(store) if not any((store / name).iterdir())}:
            found["wrong"].append(f"{told}: empty folders: {sorted(empty)[:3]}")
        else:
            found["new" if now == new else "old"] += 1
            found["repeated"] += number % 10 == 1
            if number % 10 == 1:  # and a later change is not hindered
                act(store)
                if files(store) != new:
                    found["wrong"].append(f"{told}: a later change did not succeed")
        shutil.rmtree(store, ignore_errors=True)
    return found | {"unchanged": len(shared), "files": len(new), "whole_s": whole, "write_s": inner}


def main() -> None:
    """``store_kills.py PATH COUNT SEED``: ``PATH`` is ``accept``, ``refresh`` or ``first`` (no store before)."""
    which, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    clock = SimpleNamespace(UTC=dt.UTC, datetime=SimpleNamespace(now=lambda _: _NOW))
    setattr(accepting, "dt", clock)  # noqa: B010 - as above
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        project = Project(scratch / "project", 20)
        act = project.refresh if which == "refresh" else project.accept
        source = None if which == "first" else project.old
        sys.stdout.write(json.dumps(trials(project, act, source, count, seed, scratch)))


if __name__ == "__main__":
    main()

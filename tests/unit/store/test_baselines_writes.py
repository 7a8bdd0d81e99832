"""A write is all or nothing, wherever it ends: no permission, no room, a process that was killed, two at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from qregress.store import baselines, journal
from qregress.store.atomic import locked
from qregress.store.baseline import Entry
from qregress.store.baselines import Store
from tests.store_making import CLASS, files, write_matrix_run
from tests.unit.store.making import FIRST, complaint, found, other, take


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes wherever there is a bit or none")
def test_a_folder_without_write_permission(store: Store, tmp_path: Path) -> None:
    """Given a store whose folder may not be written, then accepting says so, and reading works."""
    later = other(tmp_path)
    store.root.chmod(0o555)
    try:
        assert "is read-only; nothing was accepted" in complaint(lambda: take(store, later))
        assert store.damage() == {}
    finally:
        store.root.chmod(0o755)


def test_a_read_only_store(store: Store, tmp_path: Path, read_only: Callable[[Path], Path]) -> None:
    """Given a store on a read-only file system, then accepting says so, and reading works."""
    there = Store(read_only(store.root))
    later = other(tmp_path)
    before = files(there.root)
    assert complaint(lambda: take(there, later)) == (
        f"{there.root}: cannot be written: {there.root} is read-only; nothing was accepted"
    )
    assert files(there.root) == before
    assert there.damage() == {}
    assert found(there) == found(store)


def test_a_read_only_store_with_what_a_killed_write_left(store: Store, read_only: Callable[[Path], Path]) -> None:
    """Given a read-only store where a write was killed before its plan, then it is read as it was."""
    (store.root / journal.FOLDER).mkdir()
    (store.root / journal.FOLDER / "00000").write_bytes(b"half a fi")
    there = Store(read_only(store.root))
    assert found(there).baseline.id == FIRST
    assert there.damage() == {}


def test_a_read_only_store_with_an_unfinished_write(
    store: Store, tmp_path: Path, read_only: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a read-only store where a write was killed after its plan, then one line says that it can't be finished."""
    later, before = other(tmp_path), found(store).baseline.scores
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", _stop)
        with pytest.raises(KeyboardInterrupt):
            take(store, later)
    there = Store(read_only(store.root))
    text = f"{there.root}: cannot finish the write that was interrupted here: Read-only file system"
    assert complaint(lambda: there.find(CLASS, FIRST)) == text
    assert complaint(lambda: take(there, later)) == text
    assert store.damage() == {}  # where it can be, it is finished
    assert found(store).baseline.scores != before


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_plan(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an unfinished write whose plan is damaged, then one line says so, and nothing is moved anywhere."""
    later = other(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", _stop)
        with pytest.raises(KeyboardInterrupt):
            take(store, later)
    plan = store.root / journal.FOLDER / "plan"
    plan.write_bytes(plan.read_bytes().replace(b"/s00/", b"/s0O/"))
    before = files(store.root)
    text = complaint(store.places)
    assert text == (
        f"{store.root / journal.FOLDER}: an interrupted write left a damaged plan; "
        "remove it, and restore the folder (git checkout)"
    )
    assert complaint(lambda: take(store, later)) == text
    assert files(store.root) == before


@pytest.mark.parametrize("free", [0, 1, 2, 5, 8])
def test_a_full_disk(store: Store, tmp_path: Path, mount: Callable[..., Path], free: int) -> None:
    """Given a disk with room for the old store and some blocks of the new, then nothing is lost or left behind."""
    root = mount("size=128k")
    there = Store(root / "baselines")
    store.copy(there.root)
    blocks = os.statvfs(root)
    filler = root / "filler"
    filler.write_bytes(bytes((blocks.f_bavail - free) * blocks.f_bsize))
    before, later = files(there.root), other(tmp_path)
    text = complaint(lambda: take(there, later))
    assert text == f"{there.root}: cannot be written: No space left on device; nothing was accepted"
    assert files(there.root) == before
    assert not journal.pending(there.root)
    assert there.damage() == {}
    filler.unlink()
    take(there, later)
    assert files(there.root) != before
    assert there.damage() == {}


def test_a_full_disk_for_a_copy(store: Store, mount: Callable[..., Path]) -> None:
    """Given no room for a copy, then one line says so, of the copy."""
    target = mount("size=16k") / "copy"
    text = complaint(lambda: store.copy(target))
    assert text.startswith(f"{target}: cannot be written: ")
    assert "No space left on device" in text


def test_a_write_that_fails_after_its_plan(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a failure once the plan stands, then it is not said that nothing was accepted, and the next finishes it."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    later = other(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", fail)
        assert complaint(lambda: take(store, later)) == (
            f"{store.root}: cannot be written: Input/output error; whoever opens it next finishes the write"
        )
    memory = found(store).baseline.memory
    assert memory is not None
    assert memory.static_bytes == 2**20 + 7 * 2**18


def test_a_reader_that_waited_for_a_writer_that_was_killed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a writer killed between a reader's first look and its lock, then the reader finishes the write first."""
    later = other(tmp_path)
    done: list[Path] = []

    def killed_meanwhile(path: Path, *, shared: bool = False) -> object:
        if shared and not done:
            done.append(path)
            with monkeypatch.context() as patch:
                patch.setattr(journal, "_carry_out", _half)
                with pytest.raises(KeyboardInterrupt):
                    take(Store(store.root), later)
        return locked(path, shared=shared)

    carry_out = journal._carry_out

    def _half(root: Path, plan: journal._Plan) -> None:
        names = dict(list(plan.puts.items())[: len(plan.puts) // 2])
        carry_out(root, msgspec.structs.replace(plan, puts=names, drops=()))
        raise KeyboardInterrupt

    monkeypatch.setattr(baselines, "locked", killed_meanwhile)
    entries = store.entries()
    assert done
    static = {
        entry.baseline.memory.static_bytes
        for entry in entries.values()
        if isinstance(entry, Entry) and entry.baseline.memory
    }
    assert static == {2**20 + 7 * 2**18}


#: Accepts runs in turns, or reads the store and prints what it saw, until its standard input ends.
BUSY = """
import json
import sys
from pathlib import Path
from qregress.store.accept import accept
from qregress.store.atomic import locked
from qregress.store.baseline import Entry
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from tests.store_making import REASON, cells_of
what, root, runs, times, part = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), int(sys.argv[4]), sys.argv[5]
print("ready", flush=True)
sys.stdin.readline()
seen = set()
for turn in range(times):
    if what == "write":
        run = Path(runs[turn % len(runs)])
        with FinishedRun(run) as finished:
            cells = cells_of(run)
            cells = cells if part == "all" else cells[int(part)::2]
            accept(Store(root), finished, cells, REASON)
    else:
        entries = Store(root).entries()
        assert all(isinstance(entry, Entry) for entry in entries.values()), entries
        seen.add((len(entries), *sorted({entry.baseline.memory.static_bytes for entry in entries.values()})))
        assert Store(root).damage() == {}
print(json.dumps(sorted(seen)))
"""


def together(*arguments: tuple[str, ...]) -> list[str]:
    """What processes say that start at the same time."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for given in arguments
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return [out.splitlines()[-1] for out, _ in said]


@pytest.mark.parametrize("attempt", range(3))
def test_two_first_accepts_of_different_cells(tmp_path: Path, attempt: int) -> None:
    """Given no store and two processes that each accept half of a run, then all of it is there."""
    run = write_matrix_run(tmp_path / "run", 9, timing=None)
    root = tmp_path / f"baselines-{attempt}"
    together(("write", str(root), str(run), "1", "0"), ("write", str(root), str(run), "1", "1"))
    store = Store(root)
    assert len(store.places()) == 10
    assert store.damage() == {}
    assert not journal.pending(root)


def test_two_accepts_of_the_same_cells_and_a_reader(tmp_path: Path) -> None:
    """Given two processes that accept two runs in turns, then a reader sees one run or the other, never both."""
    runs = [write_matrix_run(tmp_path / f"run-{step}", 5, step=step, timing=None) for step in (0, 7)]
    names = ",".join(map(str, runs))
    root = tmp_path / "baselines"
    take(Store(root), runs[0])
    *_, seen = together(
        ("write", str(root), names, "12", "all"),
        ("write", str(root), ",".join(names.split(",")[::-1]), "12", "all"),
        ("read", str(root), names, "40", "all"),
    )
    both = {(6, 2**20), (6, 2**20 + 7 * 2**18)}
    assert {tuple(one) for one in json.loads(seen)} <= both
    assert Store(root).damage() == {}
    assert not journal.pending(root)

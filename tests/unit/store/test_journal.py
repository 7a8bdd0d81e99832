"""Many files changed as one: killed before any of its steps, the folder is the old one or the new one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qregress.store import journal
from qregress.store.journal import DamagedPlanError
from tests.store_making import files, folders

OLD = {"a/one": b"1", "a/two": b"2", "b/c/three": b"3"}
PUTS = {"a/one": b"new 1", "a/new/four": b"4", "d/five": b"5"}
DROPS = ("a/two", "b/c/three")
NEW = PUTS

#: Changes a folder for every line that it is given, and each time kills itself a step later than before.
SUICIDE = """
import os, signal, sys
from pathlib import Path
from qregress.store import journal
root, act, puts, drops = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3]), eval(sys.argv[4])
STEPS = {"open", "os.mkdir", "os.rmdir", "os.rename", "os.remove"}
left = 0

def step(event, arguments):
    global left
    if event in STEPS and not isinstance(arguments[0], int) and str(root) in os.fspath(arguments[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

for number, _ in enumerate(sys.stdin):
    child = os.fork()
    if child == 0:
        left = number
        sys.addaudithook(step)
        journal.commit(root, puts, drops) if act == "commit" else journal.recover(root)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def fill(root: Path, content: dict[str, bytes]) -> None:
    """Write files."""
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def renew(root: Path, content: dict[str, bytes]) -> None:
    """Make a folder hold these files and nothing else."""
    shutil.rmtree(root)
    root.mkdir()
    fill(root, content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the old files."""
    (tmp_path / "root").mkdir()
    fill(tmp_path / "root", OLD)
    return tmp_path / "root"


def deaths(root: Path, act: str, prepare: Callable[[], None]) -> Iterator[int]:
    """Let processes act, each killed a step later than the one before; ends after one that came to its end."""
    command = [sys.executable, "-c", SUICIDE, str(root), act, repr(PUTS), repr(DROPS)]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=here
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1000):
            prepare()
            process.stdin.write("\n")
            code = int(process.stdout.readline())
            assert code in {0, -signal.SIGKILL}
            yield number
            if code == 0:
                break
        process.stdin.close()


def test_a_change(root: Path) -> None:
    """Given files, when some are written and some removed as one, then that is what is there, and nothing else."""
    journal.commit(root, PUTS, DROPS)
    assert files(root) == NEW
    assert folders(root) == {"a", "a/new", "d"}
    assert not journal.pending(root)
    assert not journal.recover(root)


def test_killed_before_every_step(root: Path) -> None:
    """Given a change, when its process is killed before its n-th step, for every n, then it is all there or not at all.

    From the plan on it is all there; before it nothing is, no folder either.
    """
    outcomes = []
    for number in deaths(root, "commit", lambda: renew(root, OLD)):
        decided = journal.decided(root)
        journal.recover(root)
        found = "new" if files(root) == NEW else "old" if files(root) == OLD else "neither"
        assert found != "neither", number
        assert folders(root) == ({"a", "a/new", "d"} if found == "new" else {"a", "b", "b/c"}), number
        assert found == "new" or not decided, number
        outcomes.append(found)
    assert outcomes == sorted(outcomes, reverse=True)  # first old, then new
    assert outcomes.count("old") > 5
    assert outcomes.count("new") > 10


def test_killed_before_every_step_of_the_recovery(root: Path) -> None:
    """Given a change whose plan stands, when what finishes it is killed too, at any step, then the next finishes it."""

    def prepare() -> None:
        renew(root, OLD)
        interrupted(root)

    number = 0
    for number in deaths(root, "recover", prepare):
        journal.recover(root)
        assert files(root) == NEW, number
        assert folders(root) == {"a", "a/new", "d"}, number
    assert number > 10


def interrupted(root: Path) -> None:
    """Leave a change whose plan stands and of which nothing is carried out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_carry_out", stop)
        with pytest.raises(KeyboardInterrupt):
            journal.commit(root, PUTS, DROPS)


def stop(*_: object) -> None:
    """Somebody presses Ctrl-C."""
    raise KeyboardInterrupt


def test_interrupted_before_the_plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given Ctrl-C while new contents are written, then nothing of the change is left at once."""
    monkeypatch.setattr(journal, "_sealed", stop)
    with pytest.raises(KeyboardInterrupt):
        journal.commit(root, PUTS, DROPS)
    assert (files(root), folders(root)) == (OLD, {"a", "b", "b/c"})


def test_interrupted_after_the_plan(root: Path) -> None:
    """Given Ctrl-C once the plan stands, then the next that opens the folder finishes it."""
    interrupted(root)
    assert journal.decided(root)
    assert journal.recover(root)
    assert files(root) == NEW


def test_a_later_change_finishes_an_earlier_one(root: Path) -> None:
    """Given an interrupted change, when another is made, then both are there."""
    interrupted(root)
    journal.commit(root, {"later": b"6"})
    assert files(root) == NEW | {"later": b"6"}


def test_a_flipped_bit_in_a_plan(root: Path) -> None:
    """Given an interrupted change, when any byte of its plan is another, then nothing is moved anywhere."""
    interrupted(root)
    plan = root / journal.FOLDER / "plan"
    whole, before = plan.read_bytes(), files(root)
    for index in range(len(whole)):
        plan.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(DamagedPlanError):
            journal.recover(root)
    plan.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedPlanError):
        journal.recover(root)
    plan.write_bytes(whole)
    assert files(root) == before
    assert journal.recover(root)
    assert files(root) == NEW


def test_a_folder_in_the_way(root: Path) -> None:
    """Given a folder where a file is to be, then that shows before there is a plan that could never be finished."""
    (root / "d" / "five").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="d/five"):
        journal.commit(root, PUTS, DROPS)
    assert files(root) == OLD
    assert not journal.pending(root)


def test_a_file_in_the_way(root: Path) -> None:
    """Given a file where a folder is to be, then that shows before there is a plan that could never be finished."""
    (root / "d").write_bytes(b"a file")
    with pytest.raises(FileExistsError):
        journal.commit(root, PUTS, DROPS)
    assert files(root) == OLD | {"d": b"a file"}
    assert not journal.pending(root)


def test_a_folder_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given one folder of many that belongs to somebody else, then that shows before there is a plan."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root / "b" / "c" and access(path, mode))
    with pytest.raises(PermissionError, match=r"Permission denied: .*b/c"):
        journal.commit(root, PUTS, DROPS)
    assert files(root) == OLD
    assert not journal.pending(root)

"""The folder of one run: started without hurting anything, written whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from qregress.errors import ConfigError, Refused
from qregress.judge.verdict import judge
from qregress.record import Run, read
from qregress.store.atomic import write_atomic
from qregress.store.run import RunFolder
from tests.making import INT8, make_record


def test_start_makes_the_folder(tmp_path: Path) -> None:
    """Given no folder, when a run starts, then it is there, ignored by git, and nothing lies beside it."""
    folder = RunFolder(tmp_path / "a" / "b")
    folder.start("one")
    assert (folder.root / ".gitignore").read_text() == "*\n"
    assert [path.name for path in folder.root.parent.iterdir()] == ["b"]


def test_start_empties_an_earlier_run(tmp_path: Path) -> None:
    """Given an earlier run's folder, when another run starts, then only what marks the new one is there."""
    folder = RunFolder(tmp_path / "out")
    folder.start("one")
    folder.write_record(make_record())
    (folder.root / "link").symlink_to(tmp_path)
    folder.start("two")
    assert folder.record(INT8) is None
    assert sorted(path.name for path in folder.root.iterdir()) == [".gitignore", ".qregress-run", "run.json"]
    run = read(folder.run_json, Run)
    assert (run.complete, run.cells) == (False, ())
    assert tmp_path.is_dir()


def test_start_joins_the_same_run(tmp_path: Path) -> None:
    """Given a process that comes later to the same run, when it starts, then it finds what is there."""
    RunFolder(tmp_path / "out").start("one")
    RunFolder(tmp_path / "out").write_record(make_record())
    folder = RunFolder(tmp_path / "out")
    folder.start("one")
    assert folder.record(INT8) == make_record()


def test_foreign_files_are_kept(tmp_path: Path) -> None:
    """Given a folder with other files, when a run starts there, then it refuses and touches nothing."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files; name an empty folder or one of an earlier run"):
        RunFolder(tmp_path).start("one")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_file_in_the_way(tmp_path: Path) -> None:
    """Given a file where the folder or one above it should be, then the error names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file: is a file, not a folder; choose another"):
        RunFolder(tmp_path / "file").start("one")
    with pytest.raises(ConfigError, match=r"file is a file, not a folder; choose another"):
        RunFolder(tmp_path / "file" / "a" / "b").start("one")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_unwritable_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a place where no folder can be made, then the error is one line with the reason."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        RunFolder(Path("/proc/qregress/out")).start("one")
    assert str(caught.value).startswith("/proc/qregress/out: cannot write results there: ")
    assert len(str(caught.value).splitlines()) == 1


def test_check_changes_nothing(tmp_path: Path) -> None:
    """Given a folder that could be made or emptied, when that is checked, then it is as before."""
    folder = RunFolder(tmp_path / "a" / "out")
    folder.check()
    assert list(tmp_path.iterdir()) == []
    folder.start("one")
    folder.write_record(make_record())
    folder.check()
    assert folder.record(INT8) == make_record()


def test_a_look_of_another_process_is_no_foreign_file(tmp_path: Path) -> None:
    """Given what a check of another process of the run leaves for a moment, then the folder counts as empty."""
    (tmp_path / ".qregress-probe-x").mkdir()
    RunFolder(tmp_path).check()


def test_belongs_to_the_last_run(tmp_path: Path) -> None:
    """Given two runs in one folder, then it is the second's, and the first may no longer write there."""
    first, second = RunFolder(tmp_path / "out"), RunFolder(tmp_path / "out")
    assert not first.belongs_to("one")
    first.start("one")
    assert first.belongs_to("one")
    second.start("two")
    assert (first.belongs_to("one"), second.belongs_to("two")) == (False, True)
    with second.owned():
        pass
    with pytest.raises(Refused, match="another run has taken over this folder"), first.owned():
        pass


def test_no_run_starts_where_one_is_being_completed(tmp_path: Path) -> None:
    """Given a run that completes what it has in a folder, then another one starts there only when that has ended."""
    first, second = RunFolder(tmp_path / "out"), RunFolder(tmp_path / "out")
    first.start("one")
    with ThreadPoolExecutor(1) as threads:
        with first.held_by("one") as ours:
            started = threads.submit(second.start, "two")
            assert ours
            assert wait([started], timeout=0.2).not_done
            assert first.belongs_to("one")
        started.result(timeout=10)
    with first.held_by("one") as ours:
        assert not ours


def test_a_cell_is_started_once_in_a_run(tmp_path: Path) -> None:
    """Given a cell that was started, then the same run may not start it again, and the next one may."""
    folder = RunFolder(tmp_path / "out")
    folder.start("one")
    assert not folder.was_started(INT8)
    folder.mark_started(INT8)
    assert folder.was_started(INT8)
    with pytest.raises(Refused, match=f"{INT8}: interrupted before it had a verdict, and not tried again"):
        folder.mark_started(INT8)
    folder.start("two")
    folder.mark_started(INT8)


def test_records_and_results_come_back(tmp_path: Path) -> None:
    """Given a record and its result, when they are written, then they are read as they were."""
    folder, record = RunFolder(tmp_path), make_record()
    result = judge(record, None, {})
    assert (folder.record(INT8), folder.result(INT8)) == (None, None)
    folder.write_record(record)
    folder.write_result(result)
    assert (folder.record(INT8), folder.result(INT8)) == (record, result)
    folder.write_run(Run(started="now", cells=(result,)))
    assert read(folder.run_json, Run).cells == (result,)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a file, when writing it anew fails half-way, then the old one is whole and nothing lies beside it."""
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("run.json", b"old")]

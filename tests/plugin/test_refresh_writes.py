"""``--qregress-refresh``: when baselines are written, and what is said and kept where they cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qregress import cli
from qregress.store import journal
from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin import fake_producer
from tests.plugin.project import WAYS, Project, usage_error
from tests.plugin.refreshing import ALL, EVERY, FAILED, FAILING, MISSING, OK, REASON, WORSE, accepted, changed


def test_interrupted(kept: Project) -> None:
    """Given Ctrl-C in a refresh, then nothing is written, and the line that is shown accepts what was finished."""
    kept.behave({INT8: {"do": "interrupt"}})
    result = kept.run_apart(MISSING)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    out = kept.path / ".qregress" / "latest"
    result.stdout.fnmatch_lines(
        [f"{REFERENCE}: NOT accepted, as the run ended early; to accept it: qregress accept {out} --reason …"]
    )
    result.stdout.no_fnmatch_line("accepted *")
    assert not (kept.path / "baselines").exists()
    assert accepted(kept) == {}
    assert cli.main(["accept", str(out), "--reason", "finished"]) == 0
    assert kept.baselines() == [REFERENCE]


def test_another_run_takes_over_the_folder(kept: Project) -> None:
    """Given a run that starts there between the last cell and the end, then this one fails, and says what it lost."""
    kept.pytester.makepyfile(
        test_other="""
        from pathlib import Path
        from qregress.store.run import RunFolder
        def test_other():
            RunFolder(Path(".qregress") / "latest").start("other")
        """
    )
    result = kept.run(EVERY, REASON, "test_matrix.py", "test_other.py")
    assert result.ret == FAILED
    result.assert_outcomes(passed=4)
    out = kept.path / ".qregress" / "latest"
    result.stdout.fnmatch_lines(
        [
            "*3 pass*",
            f"{out}: another run took over this folder before this one had ended, whose records and images are gone; *",
        ]
    )
    result.stdout.fnmatch_lines(["*NOT accepted, as another run has taken over the folder of its images"])
    assert kept.results().cells == ()
    assert not (kept.path / "baselines").exists()


@WAYS
def test_exit_first(way: str, kept: Project) -> None:
    """Given ``-x`` and a cell that crashes, then the run ended early: nothing is written, and that is said."""
    kept.behave({INT8: {"do": "crash"}})
    result = kept.run_as(way, MISSING, "-x")
    assert result.ret in (FAILED, pytest.ExitCode.INTERRUPTED)
    assert not kept.results().complete
    result.stdout.fnmatch_lines(["*: NOT accepted, as the run ended early; to accept it: qregress accept *"])
    assert not (kept.path / "baselines").exists()
    assert accepted(kept) == {}


def test_exit_first_with_the_last(kept: Project) -> None:
    """Given ``-x`` and a failure in the last cell, then the run was whole: what can be accepted is."""
    kept.behave({INT8_TE: {"do": "crash"}})
    assert kept.run(MISSING, "-x").ret == FAILED
    assert kept.baselines() == [INT8, REFERENCE]


def test_a_cell_that_its_test_skips(kept: Project) -> None:
    """Given a test that skips a cell on its own, then the run ended as it was to, and the others are accepted."""
    kept.pytester.makepyfile(
        test_matrix="""
        import pytest
        def test_quantized(qregress_cell):
            if qregress_cell.id.endswith("int8/bs1"):
                pytest.skip("not today")
            qregress_cell.check()
        """
    )
    kept.run(MISSING).assert_outcomes(passed=2, skipped=1)
    assert kept.baselines() == [INT8_TE, REFERENCE]


@WAYS
def test_foreign_folder(way: str, kept: Project) -> None:
    """Given a folder with other files, then one line says so before any cell runs, and nothing in it is touched."""
    before = kept.stored("pipeline")
    message = usage_error(kept.run_as(way, MISSING, "--qregress-baselines=pipeline"))
    assert message == "pipeline: holds other files and no baselines; choose another folder for them"
    assert kept.produced() == []
    assert kept.stored("pipeline") == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
@pytest.mark.parametrize("way", ["", "-n2"])
def test_unwritable(way: str, kept: Project) -> None:
    """Given a place where nothing can be written, then one line says so before any cell runs."""
    message = usage_error(kept.run_as(way, MISSING, "--qregress-baselines=/proc/qregress/baselines"))
    assert message.startswith("/proc/qregress/baselines: cannot be written: ")
    assert kept.produced() == []


def test_full_disk(known: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a disk that is full at the end, then one line and exit code 4; the run is kept and can be accepted."""
    before = known.stored()
    known.behave(WORSE)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", _full)
        result = known.run(EVERY, REASON)
    out = known.path / ".qregress" / "latest"
    assert usage_error(result) == (
        f"{known.path}/baselines: cannot be written: No space left on device; nothing was accepted; "
        f"the run is kept: qregress accept {out} --reason …"
    )
    result.stdout.fnmatch_lines(["3 cells: NOT accepted, as the baselines could not be written", "results: *"])
    result.stdout.no_fnmatch_line("accepted *")
    assert known.stored() == before
    assert known.results().complete
    assert accepted(known) == {}
    assert cli.main(["accept", str(out), "--reason", "more room"]) == 0
    assert changed(before, known.stored()) == set(ALL)


def test_the_command(kept: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ``qregress run`` with a refresh, then it accepts as pytest does, and a failed write is exit code 4 too."""
    monkeypatch.setattr("qregress.items.session.Worker", fake_producer.FakeProducer)
    monkeypatch.setattr(fake_producer, "HERE", kept.path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", _full)
        assert cli.main(["run", "--refresh=missing"]) == pytest.ExitCode.USAGE_ERROR
    shown = capfd.readouterr()
    assert shown.err.count("ERROR: ") == 1
    assert "3 cells: NOT accepted, as the baselines could not be written" in shown.out
    assert cli.main(["run", "--refresh=missing"]) == OK
    assert f"accepted 3 new in {kept.path}/baselines" in capfd.readouterr().out
    assert kept.baselines() == ALL


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _edit(project: Project, name: str) -> None:
    """Change a file of int8's or the reference's baseline by hand."""
    path = next((project.path / "baselines").glob(f"*/{name}"))
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("name", [f"{INT8}/baseline.json", f"{INT8}/accepted.json", f"{REFERENCE}/images/00.webp"])
def test_missing_does_not_replace_damage(name: str, known: Project) -> None:
    """Given a damaged baseline, which no such refresh replaces, then that is said before any cell runs."""
    _edit(known, name)
    before = known.stored()
    assert f"/{name}: " in usage_error(known.run(MISSING))
    assert known.produced() == []
    assert known.stored() == before


@pytest.mark.parametrize(
    ("way", "mode", "name"),
    [
        ("", FAILING, f"{INT8}/baseline.json"),
        ("", EVERY, f"{INT8}/accepted.json"),
        ("", EVERY, f"{REFERENCE}/images/00.webp"),
        ("-n2", FAILING, f"{REFERENCE}/images/00.webp"),
    ],
)
def test_damage_is_replaced(way: str, mode: str, name: str, known: Project) -> None:
    """Given a damaged baseline, then a refresh that overwrites replaces it, and the next run is green."""
    _edit(known, name)
    known.behave({REFERENCE: {"color": "orange"}})  # so that its accepted image is opened
    result = known.run_as(way, mode, REASON)
    assert result.ret == OK, result.stdout.str()
    result.assert_outcomes(passed=3)
    assert known.run("--qregress-require").ret == OK

"""``--qregress-refresh``: which cells become baselines at the end of a run, and which never do."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from qregress import cli
from qregress.store import journal
from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin import fake_producer
from tests.plugin.project import WAYS, Project, usage_error

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
ALL = [INT8_TE, INT8, REFERENCE]
MISSING, FAILING, EVERY = (f"--qregress-refresh={mode}" for mode in ("missing", "failing", "all"))
REASON = "--qregress-reason=torch 2.14"
#: Within its budget, beyond its baseline.
WORSE = {INT8: {"lpips": 0.02}}
FAILED_TITLE = "*_ test_quantized[[]pixart/int8/bs1[]] _*"


def accepted(project: Project) -> dict[str, str]:
    """Which cells the run made baselines, as ``run.json`` says."""
    return {cell.id: cell.accepted for cell in project.results().cells if cell.accepted is not None}


def verdicts(project: Project) -> dict[str, str]:
    """Cell id -> verdict."""
    return {cell.id: cell.verdict for cell in project.results().cells}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """Cells any of whose files differ."""
    files = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {"/".join(name.split("/")[1:4]) for name in files}


@WAYS
def test_missing(way: str, kept: Project) -> None:
    """Given no baselines, then all cells become some, pass against them, and the next plain run is green."""
    result = kept.run_as(way, MISSING)
    assert result.ret == OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["3 pass", f"accepted 3 new in {kept.path}/baselines"])
    assert kept.baselines() == sorted(ALL)
    assert accepted(kept) == dict.fromkeys(ALL, "new")
    again = kept.run_as(way, "--qregress-require")
    assert again.ret == OK
    again.stdout.no_fnmatch_line("*NOT compared*")
    assert verdicts(kept) == dict.fromkeys(ALL, "pass")
    assert accepted(kept) == {}


@WAYS
def test_missing_never_overwrites(way: str, known: Project) -> None:
    """Given a cell beyond its baseline, when missing ones are refreshed, then it fails and its baseline stays."""
    before = known.stored()
    known.behave(WORSE)
    result = known.run_as(way, MISSING)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([FAILED_TITLE, "regression.lpips: mean *"])
    assert known.stored() == before
    assert accepted(known) == {}


def test_missing_leaves_what_was_accepted_for_something_else(known: Project) -> None:
    """Given another seed, when missing baselines are refreshed, then those of the old seed are not overwritten."""
    before = known.stored()
    known.configure(("[workloads.bs1]", "[workloads.bs1]\nseed = 7"))
    result = known.run(MISSING)
    assert result.ret == OK
    assert verdicts(known) == dict.fromkeys(ALL, "new")
    assert known.stored() == before


def test_missing_beside_others(kept: Project) -> None:
    """Given a baseline of one cell, then the others get theirs, and that one's files stay as they are."""
    kept.run(MISSING, "-k", "int8+te").assert_outcomes(passed=1, deselected=2)
    assert kept.baselines() == [INT8_TE]
    before = kept.stored()
    kept.run(MISSING).assert_outcomes(passed=3)
    assert changed(before, kept.stored()) == {INT8, REFERENCE}


@WAYS
def test_failing(way: str, kept: Project) -> None:
    """Given a failing cell, one that passes and one without a baseline, then only the failing one is accepted."""
    kept.run(MISSING, "-k", "not int8+te").assert_outcomes(passed=2, deselected=1)
    before = kept.stored()
    kept.behave(WORSE)
    result = kept.run_as(way, FAILING, REASON)
    assert result.ret == OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["accepted 1 failing in *"])
    assert accepted(kept) == {INT8: "failing"}
    assert verdicts(kept) == {REFERENCE: "pass", INT8: "pass", INT8_TE: "new"}
    assert changed(before, kept.stored()) == {INT8}
    kept.run("-k", "not int8+te").assert_outcomes(passed=2, deselected=1)


def test_failing_takes_what_was_asked_otherwise(known: Project) -> None:
    """Given another seed, then failing ones include what is not comparable any more."""
    known.configure(("[workloads.bs1]", "[workloads.bs1]\nseed = 7"))
    known.run(FAILING, REASON).assert_outcomes(passed=3)
    assert accepted(known) == dict.fromkeys(ALL, "changed")
    known.run("--qregress-require").assert_outcomes(passed=3)


@WAYS
def test_all(way: str, kept: Project) -> None:
    """Given one of each kind, then all become baselines, each told by its kind."""
    kept.run(MISSING, "-k", "not int8+te").assert_outcomes(passed=2, deselected=1)
    kept.behave(WORSE)
    result = kept.run_as(way, EVERY, REASON)
    assert result.ret == OK
    result.stdout.fnmatch_lines(["accepted 1 same, 1 failing, 1 new in *"])
    assert accepted(kept) == {REFERENCE: "same", INT8: "failing", INT8_TE: "new"}
    assert kept.run().ret == OK


def test_budgets_bind_all_the_same(known: Project) -> None:
    """Given a cell over its budget, when all are refreshed, then it fails now and next time."""
    known.behave({INT8: {"lpips": 0.2}})
    for options in ((EVERY, REASON), ()):
        result = known.run(*options)
        result.assert_outcomes(passed=2, failed=1)
        result.stdout.fnmatch_lines([FAILED_TITLE, "quality.lpips: mean *"])


@pytest.mark.parametrize(
    ("way", "broken", "check"),
    [
        ("", {"black": True}, "quality.sanity"),
        ("-n0", {"black": True}, "quality.sanity"),
        ("-n2", {"missed": "proj_out"}, "coverage.manifest"),
    ],
)
def test_what_is_never_accepted_away(way: str, broken: dict[str, object], check: str, known: Project) -> None:
    """Given a black image or a module that is not quantized, then no refresh accepts the cell, and that is said."""
    before = known.stored()
    known.behave({INT8: broken})
    result = known.run_as(way, EVERY, REASON)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"{INT8}: NOT accepted: {check} fails, which no baseline changes (*)"])
    assert changed(before, known.stored()) == {REFERENCE, INT8_TE}
    known.behave({})
    known.run().assert_outcomes(passed=3)


def test_a_reference_that_moved_under_a_cell(kept: Project) -> None:
    """Given a cell whose reference gave other bits beside it, then it is not accepted, and that is said."""
    kept.behave({INT8: {"unsteady": True}})
    result = kept.run(MISSING)
    result.stdout.fnmatch_lines([f"{INT8}: NOT accepted: its reference did not repeat itself within the run"])
    assert kept.baselines() == [INT8_TE, REFERENCE]


@pytest.mark.parametrize(("way", "do"), [("", "crash"), ("", "not-run"), ("-n2", "crash")])
def test_what_did_not_run(way: str, do: str, kept: Project) -> None:
    """Given a cell that crashed or cannot run here, then it gets no baseline, and the others do."""
    kept.behave({INT8: {"do": do}})
    result = kept.run_as(way, MISSING)
    assert result.ret == (FAILED if do == "crash" else OK)
    assert kept.baselines() == [INT8_TE, REFERENCE]
    assert accepted(kept) == {REFERENCE: "new", INT8_TE: "new"}


@pytest.mark.parametrize(
    ("way", "mode", "says"),
    [
        ("", "mising", "unknown mode 'mising'; did you mean 'missing'? allowed: all, failing, missing"),
        ("-n2", "mising", "unknown mode 'mising'; did you mean 'missing'? allowed: all, failing, missing"),
        ("", "", "unknown mode ''; allowed: all, failing, missing"),
    ],
)
def test_unknown_mode(way: str, mode: str, says: str, kept: Project) -> None:
    """Given a mode that is none, then one line says which there are, and nothing runs."""
    assert usage_error(kept.run_as(way, f"--qregress-refresh={mode}")) == f"--qregress-refresh: {says}"
    assert kept.produced() == []


def test_without_baselines(project: Project) -> None:
    """Given a configuration without baselines, then there is nothing to refresh."""
    assert usage_error(project.run(MISSING)) == '[baselines] store = "none": there are no baselines to refresh'
    assert project.produced() == []


@pytest.mark.parametrize("ci", ["true", "1", "True", "github"])
def test_ci_proposes(ci: str, kept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CI, then the store is not made; the proposal beside the results can take its place."""
    monkeypatch.setenv("CI", ci)
    result = kept.run(MISSING)
    assert result.ret == OK
    proposal = kept.path / ".qregress" / "latest" / "proposed-baselines"
    result.stdout.fnmatch_lines(["3 new", f"accepted 3 new in {proposal}"])
    assert not (kept.path / "baselines").exists()
    assert kept.baselines(".qregress/latest/proposed-baselines") == sorted(ALL)
    shutil.copytree(proposal, kept.path / "baselines")
    kept.run("--qregress-require").assert_outcomes(passed=3)


@pytest.mark.parametrize(("way", "mode"), [("", FAILING), ("", EVERY), ("-n0", EVERY), ("-n2", EVERY)])
def test_ci_is_never_green_by_a_refresh(way: str, mode: str, known: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CI and a cell beyond its baseline, then it fails as ever; only the proposal has its new figures."""
    before = known.stored()
    monkeypatch.setenv("CI", "true")
    known.behave(WORSE)
    result = known.run_as(way, mode, REASON)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([FAILED_TITLE, "regression.lpips: mean *"])
    assert known.stored() == before
    proposed = known.stored(".qregress/latest/proposed-baselines")
    assert INT8 in changed(before, proposed)
    assert proposed.keys() == before.keys()


def test_ci_and_required(kept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given that all must be compared, then a proposal is no comparison; a baseline that was accepted is."""
    monkeypatch.setenv("CI", "true")
    kept.run(MISSING, "--qregress-require").assert_outcomes(failed=3)
    monkeypatch.delenv("CI")
    kept.run(MISSING, "--qregress-require").assert_outcomes(passed=3)


@pytest.mark.parametrize("ci", ["", "0", "false", "FALSE", "no"])
def test_ci_that_is_switched_off(ci: str, kept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CI as one who works at a desk sets it, then the store is written."""
    monkeypatch.setenv("CI", ci)
    kept.run(MISSING).assert_outcomes(passed=3)
    assert kept.baselines() == sorted(ALL)


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


def test_unwritable_is_no_concern_of_ci(kept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CI, whose proposal goes elsewhere, then a store that cannot be written is enough."""
    monkeypatch.setenv("CI", "true")
    kept.run(MISSING, "--qregress-baselines=/proc/qregress/baselines").assert_outcomes(passed=3)


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


@WAYS
def test_noise_of_new_cells(way: str, kept: Project) -> None:
    """Given no baselines, then the noise floor of each cell is measured once, with a refresh or without."""
    kept.run_as(way)
    assert sorted(kept.produced("noise")) == sorted(ALL)
    assert accepted(kept) == {}


@pytest.mark.parametrize(
    ("options", "measured"),
    [((), []), ((MISSING,), []), ((FAILING, REASON), [INT8]), ((EVERY, REASON), [REFERENCE, INT8, INT8_TE])],
)
def test_noise_of_known_cells(options: tuple[str, ...], measured: list[str], known: Project) -> None:
    """Given baselines, then noise is measured of the cells that are to replace theirs, and of no other."""
    known.behave(WORSE)
    known.run(*options)
    assert known.produced("noise") == measured


@pytest.mark.parametrize(("way", "options"), [("", ()), ("", (MISSING,)), ("-n0", (MISSING,)), ("-n2", (MISSING,))])
def test_crash_while_noise_is_measured(way: str, options: tuple[str, ...], kept: Project) -> None:
    """Given a worker that dies of a variant, then nothing that was measured is lost, and the summary says so."""
    kept.behave({INT8: {"noise": "crash"}})
    result = kept.run_as(way, *options)
    assert result.ret == OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"{INT8}: its noise floor could not be measured: *SIGSEGV*"])
    record = json.loads((kept.path / ".qregress/latest/cells" / INT8 / "record.json").read_bytes())
    assert (record["status"], record["noise"]) == ("ran", None)
    assert kept.baselines() == (sorted(ALL) if options else [])
    assert len(kept.produced()) == 3


def test_interrupt_while_noise_is_measured(kept: Project) -> None:
    """Given Ctrl-C in a variant, then the run ends as interrupted, without that cell."""
    kept.behave({INT8: {"noise": "interrupt"}})
    assert kept.run_apart(MISSING).ret == pytest.ExitCode.INTERRUPTED
    assert list(verdicts(kept)) == [REFERENCE]
    assert not (kept.path / "baselines").exists()


def test_a_noise_floor_outlives_a_refresh_that_could_not_measure_it(known: Project) -> None:
    """Given a baseline with noise, when its successor's cannot be measured, then the old one is kept, and from when."""
    known.behave({INT8: {"lpips": 0.02, "noise": "crash"}})
    known.run(FAILING, REASON).assert_outcomes(passed=3)
    files = known.stored()
    baseline = json.loads(next(data for name, data in files.items() if name.endswith(f"{INT8}/baseline.json")))
    accepted = json.loads(next(data for name, data in files.items() if name.endswith(f"{INT8}/accepted.json")))
    assert baseline["noise"] is not None
    assert accepted["noise_from"] is not None

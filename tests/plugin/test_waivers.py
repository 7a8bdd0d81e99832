"""``[[waivers]]``: what fails as the configuration says it would, and what happens when it no longer does."""

from __future__ import annotations

import datetime as dt
import shutil

import pytest

from qregress import cli
from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin import fake_producer
from tests.plugin.project import WAYS, Project

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
TODAY = dt.datetime.now(dt.UTC).date()
TOMORROW, YESTERDAY = (TODAY + dt.timedelta(days=days) for days in (1, -2))  # midnight may pass while a test runs
TEXT = f"known (https://x.test/1, until {TOMORROW})"
#: Over its budget of 0.05.
FAR = {INT8: {"lpips": 0.2}}


def waive(project: Project, cell: str = INT8, check: str = "quality.lpips", expires: dt.date = TOMORROW) -> None:
    """Add a waiver to the configuration."""
    table = f'[[waivers]]\ncell = "{cell}"\ncheck = "{check}"\nreason = "known"\nissue = "https://x.test/1"\n'
    with (project.path / "qregress.toml").open("a") as stream:
        stream.write(f"{table}expires = {expires}\n")


def verdicts(project: Project) -> list[str]:
    """What ``run.json`` says of each cell."""
    return [cell.verdict for cell in project.results().cells]


@WAYS
def test_waived(way: str, project: Project) -> None:
    """Given a check that fails as its waiver says, then xfailed, exit code 0, and the summary has both reasons."""
    waive(project)
    project.behave(FAR)
    result = project.run_as(way)
    assert result.ret == OK
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            f"{INT8} *waived",
            f"{INT8}: waived: quality.lpips: mean LPIPS 0.2000 over 0.05 (budget); waived: {TEXT}",
            "2 pass, 1 waived",
        ]
    )
    assert verdicts(project) == ["pass", "waived", "pass"]


@pytest.mark.parametrize("options", [("-q",), ("-qq",), ("-v",), ("-rA",), ("--tb=no",)])
def test_in_every_summary(options: tuple[str, ...], project: Project) -> None:
    """Given less or more output of pytest's, then the waived cell is named in it."""
    waive(project)
    project.behave(FAR)
    project.run(*options).stdout.fnmatch_lines([f"{INT8}: waived: quality.lpips: *{TEXT}"])


def test_in_the_command(project: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ``qregress run``, then it is as green, and says as much."""
    monkeypatch.setattr("qregress.items.session.Worker", fake_producer.FakeProducer)
    monkeypatch.setattr(fake_producer, "HERE", project.path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "")
    waive(project)
    project.behave(FAR)
    (project.path / "conftest.py").unlink()
    assert cli.main(["run"]) == OK
    shown = capfd.readouterr()
    assert f"{INT8}: waived" in shown.err
    assert f"{INT8}: waived: quality.lpips: mean LPIPS 0.2000 over 0.05 (budget); waived: {TEXT}" in shown.out
    assert "2 pass, 1 waived" in shown.out


@WAYS
def test_runxfail(way: str, project: Project) -> None:
    """Given ``--runxfail``, then a waived cell fails, with what is wrong and what was said of it."""
    waive(project)
    project.behave(FAR)
    result = project.run_as(way, "--runxfail")
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"quality.lpips: mean LPIPS 0.2000 over 0.05 (budget); waived: {TEXT}"])


@WAYS
def test_strict(way: str, project: Project) -> None:
    """Given a waived check that passes again, then the cell fails, and the sentence says what to take out."""
    waive(project)
    result = project.run_as(way)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [f"quality.lpips: passes (*), but a waiver says that it fails: take the waiver out; it said: {TEXT}"]
    )


@WAYS
def test_expired(way: str, project: Project) -> None:
    """Given a waiver of the day before yesterday, then its check fails as ever, with the date."""
    waive(project, expires=YESTERDAY)
    project.behave(FAR)
    result = project.run_as(way)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"quality.lpips: *; its waiver expired on {YESTERDAY} (https://x.test/1): *"])


def test_expired_and_mended(project: Project) -> None:
    """Given an expired waiver of a check that passes, then the run is green, and a line says that it is of no use."""
    waive(project, expires=YESTERDAY)
    result = project.run()
    assert result.ret == OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"{INT8}: the waiver of quality.lpips expired on {YESTERDAY}", "3 pass"])


def test_no_such_check(project: Project) -> None:
    """Given a waiver of a check that is not made, then a line says so for all its cells at once."""
    waive(project, cell="pixart", check="memory.peak")
    result = project.run()
    assert result.ret == OK
    result.stdout.fnmatch_lines(["3 cells: the waiver of memory.peak does nothing: there was no such check"])


@pytest.mark.parametrize(("options", "code"), [((), OK), (("--qregress-require",), FAILED)])
@pytest.mark.parametrize("way", ["", "-n2"])
def test_void_beside_waived(way: str, options: tuple[str, ...], code: pytest.ExitCode, project: Project) -> None:
    """Given a waived cell with a check that decided nothing, when all must be decided, then it fails, not xfails."""
    project.configure(("lpips = 0.05", 'lpips = 0.05\nlatency = "1.6x"'))
    waive(project)
    project.behave({INT8: {"lpips": 0.2, "pairs": 2}})
    result = project.run_as(way, *options)
    assert result.ret == code
    result.assert_outcomes(passed=2, xfailed=int(code == OK), failed=int(code == FAILED))
    if code == FAILED:
        result.stdout.fnmatch_lines(["waived (--qregress-require): latency.ratio: fewer than 6 *"])


def test_waived_and_required(project: Project) -> None:
    """Given a waived cell whose other checks were all decided, then it is no failure where all must be."""
    waive(project)
    project.behave(FAR)
    project.run("--qregress-require").assert_outcomes(passed=2, xfailed=1)


def test_another_check_fails(project: Project) -> None:
    """Given a waived check and one that is not, then the cell fails of the other alone."""
    project.configure(("lpips = 0.05", 'lpips = 0.05\nmemory = "0.6x"'))
    waive(project)
    project.behave({INT8: {"lpips": 0.2, "static": 700}})
    result = project.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["memory.static: 0.001 MiB, limit 0.001 MiB (budget 0.6x)"])


def test_what_no_refresh_accepts_can_be_waived(project: Project) -> None:
    """Given a module that is left out, which no baseline changes, then a waiver lets it pass as xfailed."""
    project.keep_baselines()
    waive(project, check="coverage.manifest")
    project.behave({INT8: {"missed": "proj_out"}})
    project.run("--qregress-refresh=missing").assert_outcomes(passed=2, xfailed=1)
    assert project.baselines() == [INT8_TE, INT8, REFERENCE]


def test_a_regression_that_is_known(known: Project) -> None:
    """Given a cell that is worse than accepted and waived, then a refresh of failing ones leaves its baseline."""
    before = known.stored()
    waive(known, check="regression.lpips")
    known.behave({INT8: {"lpips": 0.02}})
    known.run().assert_outcomes(passed=2, xfailed=1)
    known.run("--qregress-refresh=failing", "--qregress-reason=x").assert_outcomes(passed=2, xfailed=1)
    assert known.stored() == before


def test_a_crash_is_no_xfail(project: Project) -> None:
    """Given a waived cell whose worker died, then it failed."""
    waive(project)
    project.behave({INT8: {"do": "crash"}})
    project.run().assert_outcomes(passed=2, failed=1)


def test_judged_again(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """Given a run that failed, when a waiver is added, then judging it again is green, without a device."""
    project.behave(FAR)
    project.run().assert_outcomes(passed=2, failed=1)
    shutil.copytree(project.path / ".qregress" / "latest", project.path / "run")
    waive(project)
    assert cli.main(["judge", "run"]) == OK
    assert f"waived: {TEXT}" in capfd.readouterr().out

"""``--qregress-refresh`` with ``CI``: a proposal beside the results, and never a green run for it."""

from __future__ import annotations

import shutil

import pytest

from tests.making import INT8
from tests.plugin.project import Project
from tests.plugin.refreshing import ALL, EVERY, FAILED, FAILED_TITLE, FAILING, MISSING, OK, REASON, WORSE, changed


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


def test_unwritable_is_no_concern_of_ci(kept: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CI, whose proposal goes elsewhere, then a store that cannot be written is enough."""
    monkeypatch.setenv("CI", "true")
    kept.run(MISSING, "--qregress-baselines=/proc/qregress/baselines").assert_outcomes(passed=3)

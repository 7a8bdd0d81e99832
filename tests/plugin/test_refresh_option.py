"""``--qregress-refresh``: which cells become baselines at the end of a run, and which never do."""

from __future__ import annotations

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import WAYS, Project, usage_error
from tests.plugin.refreshing import (
    ALL,
    EVERY,
    FAILED,
    FAILED_TITLE,
    FAILING,
    MISSING,
    OK,
    REASON,
    WORSE,
    accepted,
    changed,
    verdicts,
)


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

"""``--qregress-reason``: why baselines are overwritten, kept with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.making import INT8
from tests.plugin.project import WAYS, Project, usage_error


def acceptance(project: Project) -> Any:
    """Who accepted int8, when, why."""
    files = project.stored()
    return json.loads(next(data for name, data in files.items() if name.endswith(f"{INT8}/accepted.json")))


def asked(mode: str) -> str:
    """The line that asks for a reason."""
    return f'--qregress-refresh={mode} overwrites baselines; say why, as in --qregress-reason "torch 2.14"'


@pytest.mark.parametrize(("way", "mode"), [("", "failing"), ("", "all"), ("-n0", "all"), ("-n2", "all")])
def test_overwriting_needs_a_reason(way: str, mode: str, known: Project) -> None:
    """Given a refresh that overwrites, then one line asks for a reason, with an example, and nothing runs."""
    assert usage_error(known.run_as(way, f"--qregress-refresh={mode}")) == asked(mode)
    assert known.produced() == []


@pytest.mark.parametrize("reason", ["", "  \t"])
def test_an_empty_reason_is_none(reason: str, known: Project) -> None:
    """Given a reason without a word, then it is asked for."""
    assert usage_error(known.run("--qregress-refresh=all", f"--qregress-reason={reason}")) == asked("all")


@WAYS
def test_refused_without_a_refresh(way: str, known: Project) -> None:
    """Given a reason and nothing to give it for, then one line says what is missing."""
    message = usage_error(known.run_as(way, "--qregress-reason=torch 2.14"))
    assert message == "--qregress-reason says why baselines are refreshed; add --qregress-refresh"
    assert known.produced() == []


def test_refused_where_no_cell_is_chosen(known: Project) -> None:
    """Given ordinary tests alone, then an option that is wrong is told all the same."""
    known.pytester.makepyfile(test_ordinary="def test_one(): pass")
    assert usage_error(known.run("--qregress-refresh=all", "test_ordinary.py")) == asked("all")
    assert known.produced() == []


def test_kept(known: Project) -> None:
    """Given a reason, then it is kept with the baseline, without spaces around it; so is who, when and which run."""
    started = known.results().started
    known.run("--qregress-refresh=all", "--qregress-reason= torch 2.14 ").assert_outcomes(passed=3)
    found = acceptance(known)
    assert found["reason"] == "torch 2.14"
    assert found["run"] == known.results().started >= started
    assert found["by"]
    assert found["at"] >= found["run"]


def test_first_record(known: Project) -> None:
    """Given cells that had no baseline, then none is overwritten and a reason is not needed."""
    assert acceptance(known)["reason"] == "first record"


def test_a_reason_of_the_first(kept: Project) -> None:
    """Given a reason with missing baselines, then it is kept."""
    kept.run("--qregress-refresh=missing", "--qregress-reason=a new machine").assert_outcomes(passed=3)
    assert acceptance(kept)["reason"] == "a new machine"

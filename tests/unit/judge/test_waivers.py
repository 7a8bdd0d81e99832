"""Checks that are known to fail: strict, expiring, and never in silence."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from qregress.judge.budgets import Limits
from qregress.judge.verdict import judge
from qregress.judge.waivers import Waiver
from qregress.record import CellResult, Problem
from tests.making import INT8, INT8_TE, make_record, make_scores

LAST = dt.date(2027, 6, 30)
DAY = dt.timedelta(days=1)
LIMITS = Limits.parse({"lpips": 0.05}).limits
WAIVER = Waiver(cell="*", check="quality.lpips", reason="known", issue="https://x.test/1", expires=LAST)


def judged(lpips: float, *waivers: Waiver, today: dt.date = LAST, cell: str = INT8) -> CellResult:
    """A cell under a limit of 0.05."""
    record = make_record(cell, scores=make_scores(lpips=(lpips, lpips)))
    return judge(record, None, LIMITS, waived=waivers, today=today)


def check(result: CellResult) -> tuple[str, str]:
    """Verdict and words of the only check that may be waived here."""
    return next((check.verdict, check.why) for check in result.checks if check.name == "quality.lpips")


@pytest.mark.parametrize("today", [LAST - DAY, LAST])
def test_waived(today: dt.date) -> None:
    """Given a check that fails as its waiver says, to the last day, then it is waived, with both reasons."""
    result = judged(0.2, WAIVER, today=today)
    assert (result.verdict, result.notes) == ("waived", ())
    assert check(result) == (
        "waived",
        "mean LPIPS 0.2000 over 0.05 (budget); waived: known (https://x.test/1, until 2027-06-30)",
    )


@pytest.mark.parametrize("today", [LAST - DAY, LAST])
def test_strict(today: dt.date) -> None:
    """Given a check that passes under a waiver, then it fails, and the sentence says what to take out."""
    result = judged(0.01, WAIVER, today=today)
    verdict, why = check(result)
    assert (result.verdict, verdict) == ("fail", "fail")
    assert why.endswith(
        "but a waiver says that it fails: take the waiver out; it said: known (https://x.test/1, until 2027-06-30)"
    )


def test_expired_and_failing() -> None:
    """Given the day after the last, then the check fails, and the date is in the sentence."""
    result = judged(0.2, WAIVER, today=LAST + DAY)
    verdict, why = check(result)
    assert (result.verdict, verdict) == ("fail", "fail")
    assert why.endswith("; its waiver expired on 2027-06-30 (https://x.test/1): mend it, or renew the waiver")


def test_expired_and_passing() -> None:
    """Given an expired waiver of a check that passes, then it passes; a note says that the waiver is of no use."""
    result = judged(0.01, WAIVER, today=LAST + DAY)
    assert (result.verdict, check(result)[0]) == ("pass", "pass")
    assert result.notes == ("the waiver of quality.lpips expired on 2027-06-30",)


def test_no_such_check() -> None:
    """Given a waiver of a check that was not made, then a note says that it does nothing."""
    waiver = Waiver(**(_fields(WAIVER) | {"check": "memory.static"}))
    result = judged(0.01, waiver)
    assert result.verdict == "pass"
    assert result.notes == ("the waiver of memory.static does nothing: there was no such check",)


@pytest.mark.parametrize(("cell", "expected"), [(INT8_TE, "waived"), (INT8, "fail")])
def test_other_cells(cell: str, expected: str) -> None:
    """Given a waiver of some cells, then the others fail as ever, and hear nothing of it."""
    waiver = Waiver(**(_fields(WAIVER) | {"cell": "pixart/int8+te"}))
    result = judged(0.2, waiver, cell=cell)
    assert (result.verdict, result.notes) == (expected, ())


def test_other_checks() -> None:
    """Given a waiver of one check, when another fails too, then the cell fails."""
    limits = Limits.parse({"lpips": 0.05, "latents": 0.1}).limits
    record = make_record(scores=make_scores(lpips=(0.2, 0.2), latents=(0.5, 0.5)))
    result = judge(record, None, limits, waived=[WAIVER], today=LAST)
    assert result.verdict == "fail"
    assert {check.name: check.verdict for check in result.checks} == {
        "quality.sanity": "pass",
        "quality.lpips": "waived",
        "quality.latents": "fail",
    }


def test_what_is_never_accepted_away_can_be_waived() -> None:
    """Given a black image, which no baseline makes right, then a waiver lets it pass as waived, and nothing else."""
    waiver = Waiver(**(_fields(WAIVER) | {"check": "quality.sanity"}))
    black = Problem(prompt=0, kind="black", detail="mean 0")
    record = make_record(scores=make_scores(problems=(black,)))
    assert judge(record, None, {}, waived=[waiver], today=LAST).verdict == "waived"
    assert judge(record, None, {}, waived=[WAIVER], today=LAST).verdict == "fail"


@pytest.mark.parametrize("order", [1, -1])
def test_a_renewed_waiver_beside_the_old_one(order: int) -> None:
    """Given two waivers of one check, when one has expired, then the other holds, whichever comes first."""
    renewed = Waiver(**(_fields(WAIVER) | {"expires": LAST + 9 * DAY}))
    result = judged(0.2, *[WAIVER, renewed][::order], today=LAST + DAY)
    assert result.verdict == "waived"
    assert result.notes == ("the waiver of quality.lpips expired on 2027-06-30",)


@pytest.mark.parametrize("status", ["crashed", "not-run"])
def test_a_crash_cannot_be_waived(status: str) -> None:
    """Given a cell that left no figures, then its waiver changes nothing."""
    record = make_record(status=status)
    assert judge(record, None, LIMITS, waived=[WAIVER], today=LAST).verdict == status


def test_void_stays_void() -> None:
    """Given a check that could not decide, then a waiver neither hides it nor calls it mended."""
    waiver = Waiver(**(_fields(WAIVER) | {"check": "drift.reference"}))
    record = make_record(reference_repeatable=False)
    assert judge(record, None, {}, waived=[waiver], today=LAST).verdict == "void"


def _fields(waiver: Waiver) -> dict[str, Any]:
    return {name: getattr(waiver, name) for name in waiver.__struct_fields__}

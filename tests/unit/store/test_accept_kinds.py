"""Where a judged cell stands towards its baseline."""

from __future__ import annotations

import datetime as dt

import msgspec

from qregress.judge import waivers
from qregress.judge.verdict import judge
from qregress.judge.waivers import Waiver
from qregress.record import Check
from qregress.store.accept import kind_of, refusal
from tests.making import INT8, make_record

LAST = dt.date(2099, 1, 1)
WAIVER = Waiver(cell=INT8, check="regression.lpips", reason="known", issue="https://x.test/1", expires=LAST)


def test_a_waiver_that_is_not_needed_is_no_regression() -> None:
    """Given a check that passes again under its waiver, then the cell fails, but its baseline is as good as before."""
    record = make_record()
    (check,) = waivers.apply([Check(name="regression.lpips", verdict="pass")], INT8, [WAIVER], dt.date(2026, 1, 1))
    result = msgspec.structs.replace(judge(record, None, {}), checks=(check,))
    assert check.verdict == "fail"
    assert kind_of(result, comparable=True, known=True) == "same"


def test_a_waived_sanity_check_that_passes_again_refuses_nothing() -> None:
    """Given images that are images again under a waiver, then the cell may be accepted."""
    record = make_record()
    waiver = Waiver(cell=INT8, check="quality.sanity", reason="known", issue="https://x.test/1", expires=LAST)
    (check,) = waivers.apply([Check(name="quality.sanity", verdict="pass")], INT8, [waiver], dt.date(2026, 1, 1))
    result = msgspec.structs.replace(judge(record, None, {}), checks=(check,))
    assert refusal(record, result) is None

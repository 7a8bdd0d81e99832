"""Each check against the accepted record, where there is one or a figure is missing, and what it is based on."""

from __future__ import annotations

import msgspec
import pytest

from qregress.judge.noise import K
from qregress.judge.regression import lpips
from qregress.judge.timing_regression import latency
from qregress.record import Timing
from tests.making import make_acceptable, make_noise, make_record, make_scores
from tests.unit.judge.making import CHECKS, MISSING, SCORES, accepted, full, scored, sure, timed


@pytest.mark.parametrize("name", CHECKS)
def test_new(name: str) -> None:
    """Given no baseline, then each comparison is new, and says why there is nothing to compare with."""
    found = sure(CHECKS[name](full(), MISSING))
    assert (found.name, found.verdict, found.why) == (f"regression.{name}", "new", "no baselines in baselines/")


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_measured_nothing_said(name: str) -> None:
    """Given a record without the figure, then there is no check of it, without a baseline or with one that has none."""
    assert CHECKS[name](make_record(), MISSING) is None
    assert CHECKS[name](make_record(), accepted(make_acceptable())) is None


@pytest.mark.parametrize("name", CHECKS)
def test_a_figure_that_is_gone(name: str) -> None:
    """Given a baseline that has the figure, when the record has none of it, then that is a failure and says so."""
    before = accepted(full())
    assert sure(CHECKS[name](full(), before)).verdict == "pass"
    found = sure(CHECKS[name](make_record(), before))
    assert (found.name, found.verdict) == (f"regression.{name}", "fail")
    assert found.why == "was measured when it was accepted, and is not now; if that is meant, accept this run"


@pytest.mark.parametrize("name", ["lpips", "clip", "latents", "motion"])
def test_one_score_that_is_gone(name: str) -> None:
    """Given scores of which one kind is missing now, then that one fails, and the others are compared as ever."""
    now = full(scores=msgspec.structs.replace(make_scores(**SCORES), **{name: ()}))
    names = ("lpips", "clip", "latents", "motion")
    assert {n: sure(CHECKS[n](now, accepted(full()))).verdict for n in names} == {
        n: "fail" if n == name else "pass" for n in names
    }


def test_pairs_that_are_gone() -> None:
    """Given seconds without a reference's beside them, then the ratio is gone, unless there was none when accepted."""
    alone = make_acceptable(timing=Timing(samples_s=(1.0,) * 8))
    assert sure(latency(alone, accepted(timed(1.0)))).verdict == "fail"
    assert latency(alone, accepted(alone)) is None


@pytest.mark.parametrize("name", CHECKS)
def test_a_figure_that_was_not_accepted(name: str) -> None:
    """Given a baseline without the figure that is measured now, then it is new, not passed."""
    found = sure(CHECKS[name](full(), accepted(make_acceptable())))
    assert (found.verdict, found.why) == ("new", "the accepted record has no such figure")


def test_k_is_in_the_basis() -> None:
    """Given a noise, then the basis holds accepted value, k, noise and floor, as DESIGN promises."""
    found = sure(lpips(scored(lpips=(0.02, 0.02)), accepted(scored(lpips=(0.02, 0.02)), make_noise(0.0001, 0.0001))))
    assert found.basis == f"accepted 0.02 + {K:g} x 0.0001 + 5e-05"

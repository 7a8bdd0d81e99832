"""Memory and latency against the accepted ones: a byte decides, and seconds only where they can."""

from __future__ import annotations

from typing import Any

import pytest

from qregress.judge import timing_regression
from qregress.judge.noise import NOISY
from qregress.judge.regression import memory
from qregress.judge.timing_regression import latency
from qregress.record import Timing
from qregress.stats import Ratio, ratio
from tests.making import make_acceptable, make_memory, make_record
from tests.unit.judge.making import accepted, sure, timed


@pytest.mark.parametrize(
    ("static", "expected", "better"),
    [
        (1_000_000 + 64 * 1024, "pass", False),
        (1_000_000 + 64 * 1024 + 1, "fail", False),
        (1_000_000 - 64 * 1024, "pass", False),
        (1_000_000 - 64 * 1024 - 1, "pass", True),
    ],
)
def test_memory(static: int, expected: str, better: bool) -> None:
    """Given bytes at the margin's edges, then a byte decides, to both sides."""
    before = accepted(make_acceptable(memory=make_memory(1_000_000)))
    found = sure(memory(make_record(memory=make_memory(static, peak=1_000_000)), before))
    assert (found.verdict, found.better) == (expected, better)


def test_peak() -> None:
    """Given a peak beyond its own limit, then it fails with that figure, and fewer static bytes excuse nothing."""
    before = accepted(make_acceptable(memory=make_memory(1_000_000, peak=2_000_000)))
    found = sure(memory(make_record(memory=make_memory(10, peak=2_000_000 + 64 * 1024 + 1)), before))
    assert (found.verdict, found.better) == ("fail", False)
    assert found.why == "peak 1.970 MiB, accepted 1.907 MiB, limit 1.970 MiB"


@pytest.mark.parametrize(
    ("seconds", "expected", "better"),
    [(1.0, "pass", False), (1.15, "pass", False), (1.16, "fail", False), (0.86, "pass", False), (0.84, "pass", True)],
)
def test_latency(seconds: float, expected: str, better: bool) -> None:
    """Given pairs without noise, then a ratio may be 15 % above the accepted one."""
    found = sure(latency(timed(seconds), accepted(timed(1.0))))
    assert (found.verdict, found.better) == (expected, better)


def test_latency_limit_is_the_products() -> None:
    """Given accepted pairs with noise, then half their interval is added, as a sampler was told."""
    before = make_acceptable(timing=Timing(samples_s=(1.0, 1.2) * 4, reference_s=(1.0,) * 8))
    was = ratio((1.0, 1.2) * 4, (1.0,) * 8)
    assert was is not None
    found = sure(latency(timed(1.0), accepted(before)))
    assert found.limit == pytest.approx(was.value * 1.15 + (was.high - was.low) / 2)


@pytest.mark.parametrize("where", [{"name": "another CPU"}, {"threads": 16}])
def test_latency_elsewhere(where: dict[str, Any]) -> None:
    """Given another CPU of the class, or other threads, then even a slow ratio is void, and both are named."""
    found = sure(latency(timed(9.0, **where), accepted(timed(1.0))))
    assert (found.verdict, found.value) == ("void", 9.0)
    assert found.why.startswith("accepted on a CPU with 2 threads, this is ")


def test_latency_too_noisy() -> None:
    """Given pairs that lie on both sides of the limit, then it is void with interval and limit."""
    now = make_acceptable(timing=Timing(samples_s=(1.0, 2.0) * 4, reference_s=(1.0,) * 8))
    found = sure(latency(now, accepted(timed(1.0))))
    assert found.verdict == "void"
    assert found.limit == pytest.approx(1.15)
    assert found.why.startswith("too noisy: ")


@pytest.mark.parametrize(("now", "before", "when"), [(5, 8, "now"), (8, 5, "when it was accepted"), (5, 5, "now")])
def test_latency_with_few_pairs(now: int, before: int, when: str) -> None:
    """Given fewer than six pairs on either side, then it is void, and says on which."""
    found = sure(latency(timed(9.0, now), accepted(timed(1.0, before))))
    assert (found.verdict, found.why) == ("void", f"fewer than 6 interleaved pairs {when}")


@pytest.mark.parametrize(("spread", "expected"), [(0.9, "void"), (0.1, "pass")])
def test_latency_against_a_noisy_ratio(spread: float, expected: str) -> None:
    """Given an accepted ratio whose interval is wider than half of it, then it limits nothing, and its width is said.

    A quarter to each side would let everything pass: half its interval is added to the limit.
    """
    before = make_acceptable(timing=Timing(samples_s=(1.0, 1.0 + spread) * 4, reference_s=(1.0,) * 8))
    was = ratio((1.0, 1.0 + spread) * 4, (1.0,) * 8)
    assert was is not None
    assert (was.high - was.low > 2 * NOISY * was.value) == (expected == "void")
    found = sure(latency(timed(1.0), accepted(before)))
    assert (found.verdict, found.value) == (expected, 1.0)
    if expected == "void":
        told = f"{was.value:.3f}x, interval {was.low:.3f} to {was.high:.3f}"
        assert found.why == f"the accepted ratio is too noisy: {told}; accept a calmer run"
        assert found.limit is None


@pytest.mark.parametrize("half", [0.25, 0.2501])
def test_noisy_is_a_quarter_to_each_side(half: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an accepted interval of a quarter to each side, then it still limits; a hair wider does not."""
    found = {1.0: Ratio(1.0, 1.0, 1.0), 2.0: Ratio(1.0, 1.0 - half, 1.0 + half)}
    monkeypatch.setattr(timing_regression, "ratio", lambda mine, _: found[mine[0]])
    verdict = sure(latency(timed(1.0), accepted(timed(2.0)))).verdict
    assert verdict == ("pass" if half == NOISY else "void")

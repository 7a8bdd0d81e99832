"""How far a score may lie from the accepted one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qregress.judge.budgets import WORST_FACTOR
from qregress.judge.noise import FLOORS, K_PROMPT, K, latency_margin, margin, memory_margin, prompt_margin
from qregress.record import Noise, NoiseVariant
from qregress.stats import Ratio
from tests.making import make_noise

MOVES = st.lists(st.floats(min_value=-1, max_value=1), min_size=1, max_size=8)


def test_without_noise_the_floor() -> None:
    """Given a noise of zero, then the margin is the floor, and the basis has all three terms."""
    found = margin("lpips", 0.004, make_noise(0.0, 0.0), 8)
    assert found.value == FLOORS["lpips"].absolute
    assert found.basis == "accepted 0.004 + 3 x 0 + 5e-05"


def test_not_measured() -> None:
    """Given a baseline whose noise was not measured, then the margin is the floor, and the basis says so."""
    found = margin("lpips", 0.004, None, 8)
    assert (found.value, found.basis) == (5e-05, "accepted 0.004 + 5e-05; its noise was not measured")


def test_what_moves_all_prompts_alike() -> None:
    """Given a variant that moved every prompt by as much, then the mean may move by k times that."""
    found = margin("clip", 0.01, make_noise(0.002, 0.002, score="clip"), 8)
    assert found.value == pytest.approx(K * 0.002 + 0.001)


def test_scatter_is_less_in_a_mean_of_many() -> None:
    """Given prompts that moved to both sides, then a mean over sixteen has a quarter of what one of them moved by."""
    noise = make_noise(0.01, -0.01)
    assert noise.of_mean("lpips", 16) == pytest.approx(0.0025)
    assert noise.of_prompt("lpips") == 0.01


def test_the_worst_variant_counts() -> None:
    """Given several variants, then the one that moved most counts, whichever its sign; empty ones say nothing."""
    variants = [NoiseVariant(name=name, lpips=moved) for name, moved in (("a", (0.0,)), ("b", (-0.3,)), ("c", ()))]
    noise = Noise(variants=tuple(variants))
    assert (noise.of_mean("lpips", 1), noise.of_prompt("lpips")) == (0.3, 0.3)
    assert (noise.of_mean("clip", 1), noise.of_prompt("clip")) == (0.0, 0.0)


def test_no_variants() -> None:
    """Given a noise without variants, then nothing has moved."""
    assert (Noise(variants=()).of_mean("lpips", 8), Noise(variants=()).of_prompt("lpips")) == (0.0, 0.0)


@given(MOVES, st.integers(min_value=1, max_value=64))
def test_a_mean_never_moves_more_than_a_prompt(moved: list[float], prompts: int) -> None:
    """Given any noise, then a mean's share lies between zero and what the worst prompt moved by."""
    noise = make_noise(*moved)
    assert 0 <= noise.of_mean("lpips", prompts) <= noise.of_prompt("lpips") + 1e-12


def test_prompt_margin() -> None:
    """Given a noise, then a prompt may move by six times the most that one moved, and as many floors as in budgets."""
    assert K_PROMPT == 6
    expected = K_PROMPT * 0.01 + WORST_FACTOR * FLOORS["lpips"].absolute
    assert prompt_margin("lpips", 0.5, make_noise(0.01, 0.0)) == pytest.approx(expected)
    assert prompt_margin("lpips", 0.5, None) == WORST_FACTOR * FLOORS["lpips"].absolute


def test_a_relative_floor_grows_with_what_was_accepted() -> None:
    """Given a score whose floor is a share, then twice the distance has twice the room."""
    assert margin("latents", 0.4, None, 8).value == pytest.approx(2 * margin("latents", 0.2, None, 8).value)


def test_noise_of_images_has_no_motion() -> None:
    """Given a noise of images, of whose motion nothing was measured, then there is none, and the floor is left."""
    noise = make_noise(0.001, 0.001)
    assert (noise.of_mean("motion", 2), noise.of_prompt("motion")) == (0.0, 0.0)
    assert margin("motion", 0.0, noise, 2).value == FLOORS["motion"].absolute
    moved = make_noise(0.01, 0.03, score="motion")
    assert (moved.of_mean("motion", 2), moved.of_prompt("motion")) == pytest.approx((0.02, 0.03))


@pytest.mark.parametrize(
    ("accepted", "expected"), [(0, 64 * 1024), (13_107_200, 64 * 1024), (1024**3, round(0.005 * 1024**3))]
)
def test_memory_margin(accepted: int, expected: int) -> None:
    """Given few bytes, then 64 KiB; given many, then half a percent."""
    assert memory_margin(accepted) == expected


def test_latency_margin() -> None:
    """Given an accepted ratio, then half its interval and 15 %; the basis says both."""
    found = latency_margin(Ratio(value=1.2, low=1.1, high=1.4))
    assert found.value == pytest.approx(0.15 + 0.18)
    assert found.basis == "accepted 1.200x + 0.150 (half its 99% interval) + 0.180"

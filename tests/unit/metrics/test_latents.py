"""Relative L2 of latents."""

from __future__ import annotations

import math

import pytest
import torch

from qregress.metrics import MetricError
from qregress.metrics.latents import relative_l2, trajectory


def test_relative_l2_follows_its_definition() -> None:
    """|x - reference| / |reference|, of any dtype."""
    reference = torch.tensor([3.0, 4.0])
    assert relative_l2(torch.tensor([3.0, 5.0]), reference) == pytest.approx(0.2)
    assert relative_l2(torch.tensor([3.0, 5.0], dtype=torch.bfloat16), reference.half()) == pytest.approx(0.2)
    assert relative_l2(reference, reference) == 0.0
    assert (
        relative_l2(torch.full((2,), 1e200, dtype=torch.float64), torch.full((2,), 1e200, dtype=torch.float64)) == 0.0
    )
    assert relative_l2(torch.empty(0), torch.empty(0)) == 0.0


def test_sums_are_kept_in_float64() -> None:
    """In float16 the sum of squares of these would overflow, and in float32 lose the small difference."""
    reference = torch.full((1, 4, 128, 128), 200.0, dtype=torch.float16)
    other = reference.clone()
    other[0, 0, 0, 0] = 200.125
    assert relative_l2(other, reference) == pytest.approx(0.125 / (200 * 256), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_infinitely_far(bad: float) -> None:
    """A NaN never passes as a small number, on either side."""
    healthy, broken = torch.ones(4), torch.tensor([1.0, bad, 1.0, 1.0])
    assert relative_l2(broken, healthy) == math.inf
    assert relative_l2(healthy, broken) == math.inf


def test_a_reference_of_zeros_is_far_from_everything_else() -> None:
    """No division by zero."""
    assert relative_l2(torch.ones(4), torch.zeros(4)) == math.inf
    assert relative_l2(torch.zeros(4), torch.zeros(4)) == 0.0


def test_shapes_and_steps_must_match() -> None:
    """Neither broadcasts nor truncates."""
    with pytest.raises(MetricError, match="shapes differ"):
        relative_l2(torch.ones(1, 4), torch.ones(4))
    with pytest.raises(MetricError, match="2 steps against 1"):
        trajectory([torch.ones(4)] * 2, [torch.ones(4)])


def test_trajectory_has_one_entry_per_step() -> None:
    """In the order of the steps."""
    reference = [torch.ones(4)] * 3
    assert trajectory([torch.ones(4) * (1 + step) for step in range(3)], reference) == pytest.approx([0.0, 1.0, 2.0])


def test_steps_at_once_or_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given steps of more values than are taken at once, then the distances are those of the single steps."""
    made = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    reference = made + 0.1 * torch.arange(7.0).reshape(7, 1, 1)
    alone = [relative_l2(a, b) for a, b in zip(made, reference, strict=True)]
    for values in (1, 12, 2**24):
        monkeypatch.setattr("qregress.metrics.latents._VALUES", values)
        assert trajectory(made, reference) == pytest.approx(alone, rel=1e-12)
    assert relative_l2(torch.tensor(3.0), torch.tensor(2.0)) == 0.5

"""PSNR and SSIM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from qregress.metrics import MetricError
from qregress.metrics.pixels import psnr, ssim

if TYPE_CHECKING:
    from torch import Tensor


def test_psnr_follows_its_definition() -> None:
    """An error of 0.1 everywhere is 20 dB, of 0.01 it is 40 dB, per pair; identical images have none."""
    black = torch.zeros(3, 3, 16, 16)
    other = black.clone()
    other[0] += 0.1
    other[1] += 0.01
    twenty, forty, none = psnr(black, other)
    assert pytest.approx((twenty, forty), abs=1e-4) == (20.0, 40.0)
    assert none is None


def test_ssim_is_one_for_identical_images_and_falls_with_noise(pictures: Tensor) -> None:
    """Per pair, and the same alone as among others."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    weak, strong = ssim(pictures, (pictures + 0.02 * noise).clamp(0, 1)), ssim(pictures, (pictures + noise).clamp(0, 1))
    assert ssim(pictures, pictures.clone()) == [1.0] * 8
    assert all(1 > a > b for a, b in zip(weak, strong, strict=True))
    assert weak[3:4] == ssim(pictures[3:4], (pictures + 0.02 * noise).clamp(0, 1)[3:4])


def test_sizes_must_match() -> None:
    """Nothing is resized."""
    a, b = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 32)
    with pytest.raises(MetricError, match="PSNR: shapes differ"):
        psnr(a, b)
    with pytest.raises(MetricError, match="SSIM: shapes differ"):
        ssim(a, b)
    with pytest.raises(MetricError, match="at least 11 px"):
        ssim(a[..., :8], a[..., :8])

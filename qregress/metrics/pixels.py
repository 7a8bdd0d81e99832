"""PSNR and SSIM of image pairs, through torchmetrics. No learned part: they sit beside LPIPS as plain evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from qregress.metrics.tensors import check_pair, exact_float32

if TYPE_CHECKING:
    from torch import Tensor

_SSIM_WINDOW = 11  # px: torchmetrics' Gaussian window


def psnr(a: Tensor, b: Tensor) -> list[float | None]:
    """Peak signal-to-noise ratio in dB of each pair of float32 images [n, 3, h, w] in [0, 1].

    ``None`` stands for identical images, whose ratio is infinite: JSON has no infinity. Raises ``MetricError``.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio  # takes long, and random weights need none

    check_pair(a, b, "PSNR", smallest=1)
    with exact_float32():
        values = peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3)).tolist()
    return [None if math.isinf(value) else float(value) for value in values]


def ssim(a: Tensor, b: Tensor) -> list[float]:
    """Structural similarity (Wang et al., 2004) of each pair of float32 images [n, 3, h, w] in [0, 1]; 1 for identical.

    Smooth areas scatter by up to 1e-4, as float32 variances are differences of nearly equal numbers; float64 takes
    thirteen times as long (13 s for a pair of 1024 px on two cores). Identical images are 1 by definition. Pairs go
    through one by one: the windows of large images take five times their memory. Raises ``MetricError``.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_pair(a, b, "SSIM", smallest=_SSIM_WINDOW)
    with exact_float32():
        return [
            1.0
            if torch.equal(one, other)
            else float(structural_similarity_index_measure(one[None], other[None], data_range=1.0, reduction="sum"))
            for one, other in zip(a, b, strict=True)
        ]

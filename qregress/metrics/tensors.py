"""What every metric of image pairs asks of its input, and the arithmetic it runs under."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from qregress.metrics.weights import MetricError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_RANK = 4  # [n, 3, h, w]
_CHANNELS = 3


def check_images(images: Tensor, what: str) -> None:
    """Raise ``MetricError`` unless ``images`` is float32 [n >= 1, 3, h, w], finite, in [0, 1]. ``what`` names it."""
    shape = list(images.shape)
    if len(shape) != _RANK or shape[1] != _CHANNELS or 0 in shape:
        raise MetricError(f"{what}: expected images of shape [n, 3, height, width], found {shape}")
    if images.dtype != torch.float32:
        raise MetricError(f"{what}: expected float32 images, found {str(images.dtype).removeprefix('torch.')}")
    low, high = (float(bound) for bound in torch.aminmax(images))
    if low != low or high != high:  # noqa: PLR0124  aminmax hands NaN on, and only NaN differs from itself
        raise MetricError(f"{what}: the images hold NaN; look at quality.sanity of the same cell first")
    if low < 0.0 or high > 1.0:
        raise MetricError(f"{what}: expected values in [0, 1], found [{low:.6g}, {high:.6g}]")


def check_pair(a: Tensor, b: Tensor, what: str, smallest: int) -> None:
    """Raise ``MetricError`` unless both are images (``check_images``) of one shape, ``smallest`` px or more a side."""
    if a.shape != b.shape:
        raise MetricError(
            f"{what}: shapes differ, {list(a.shape)} against {list(b.shape)}; "
            "a reference is never resized: compare runs of the same size and number of prompts"
        )
    check_images(a, what)
    check_images(b, what)
    if min(a.shape[-2:]) < smallest:
        raise MetricError(f"{what}: needs at least {smallest} px a side, found {a.shape[-2]} x {a.shape[-1]}")


@contextmanager
def exact_float32() -> Iterator[None]:
    """No gradients and no reduced-precision products, so that a GPU scores as a CPU does; settings are put back.

    cuDNN multiplies float32 convolutions in TF32 (10-bit mantissa) unless it is told not to.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)

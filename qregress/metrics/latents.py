"""How far latents lie from the reference's: quantization error before any decoder, crop or rounding to 8 bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from qregress.metrics.weights import MetricError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def relative_l2(x: Tensor, reference: Tensor) -> float:
    """``|x - reference| / |reference|`` in the Euclidean norm, over all elements, accumulated in float64.

    Both of any dtype, device and shape, but the same shape; 0.0 for equal tensors. Infinity where either holds a NaN
    or an infinity, and where only the reference is all zeros. Raises ``MetricError`` where the shapes differ.
    """
    if x.shape != reference.shape:
        raise MetricError(
            f"latents: shapes differ, {list(x.shape)} against {list(reference.shape)}; "
            "compare runs of the same pipeline, size and batch"
        )
    wide, wide_reference = (tensor.detach().to("cpu", torch.float64) for tensor in (x, reference))
    if not (bool(wide.isfinite().all()) and bool(wide_reference.isfinite().all())):
        return math.inf
    difference = float(torch.linalg.vector_norm(wide - wide_reference))
    norm = float(torch.linalg.vector_norm(wide_reference))
    if difference == 0.0:
        return 0.0
    return difference / norm if norm else math.inf


def trajectory(xs: Sequence[Tensor], references: Sequence[Tensor]) -> list[float]:
    """``relative_l2`` after each denoising step. Raises ``MetricError`` where the numbers of steps or shapes differ."""
    if len(xs) != len(references):
        raise MetricError(f"latents: {len(xs)} steps against {len(references)}; compare runs with the same steps")
    return [relative_l2(x, reference) for x, reference in zip(xs, references, strict=True)]

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
    return _each(x.unsqueeze(0), reference.unsqueeze(0))[0]


def trajectory(xs: Sequence[Tensor] | Tensor, references: Sequence[Tensor] | Tensor) -> list[float]:
    """``relative_l2`` after each denoising step, ``[steps, ...]``.

    Raises ``MetricError`` where the numbers of steps or shapes differ.
    """
    if len(xs) != len(references):
        raise MetricError(f"latents: {len(xs)} steps against {len(references)}; compare runs with the same steps")
    if isinstance(xs, torch.Tensor) and isinstance(references, torch.Tensor) and xs.shape == references.shape:
        return _each(xs, references)
    return [relative_l2(x, reference) for x, reference in zip(xs, references, strict=True)]


def _each(xs: Tensor, references: Tensor) -> list[float]:
    """Of pairs along the first dimension."""
    if not xs.numel():
        return [0.0] * len(xs)
    told: list[float] = []
    some = max(1, _VALUES // xs[0].numel())
    for start in range(0, len(xs), some):
        wide, wide_references = (
            part[start : start + some].detach().to("cpu", torch.float64).reshape(-1, xs[0].numel())
            for part in (xs, references)
        )
        finite = (wide.isfinite() & wide_references.isfinite()).all(1).tolist()
        norms = torch.linalg.vector_norm(wide_references, dim=1).tolist()
        differences = torch.linalg.vector_norm(wide - wide_references, dim=1).tolist()
        told += [
            _share(difference, norm) if known else math.inf
            for known, difference, norm in zip(finite, differences, norms, strict=True)
        ]
    return told


#: So many at once: of a video's latents, all steps in float64 would be gigabytes.
_VALUES = 2**24


def _share(difference: float, norm: float) -> float:
    if difference == 0.0:
        return 0.0
    return difference / norm if norm else math.inf

"""Does a video move as its reference does? What frame-by-frame scores do not see: a video that stands still."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from qregress.metrics.tensors import check_pair
from qregress.metrics.weights import MetricError

if TYPE_CHECKING:
    from torch import Tensor

_FEWEST = 2  # frames that can differ
#: Root mean square of the reference's motion below which it counts as this much: half a level of 8 bits. Rounding to 8
#: bits leaves an error of 1/sqrt(12) = 0.29 levels in each frame and so of 0.41 in a difference of two: a reference
#: that moves by less stands still as far as its frames can tell, and dividing by that would measure rounding.
FLOOR = 0.5 / 255


def motion(video: Tensor, reference: Tensor) -> float:
    """``|D(video) - D(reference)| / max(|D(reference)|, floor)``, D: the differences of neighbouring frames.

    Both are float32 [frames, 3, h, w] in [0, 1], two frames or more, of one shape; norms are Euclidean, over all
    differences at once, accumulated in float64. 0.0 for equal motion, whatever is the same in all frames; 1.0 for a
    video that stands still, where the reference moves; more where it moves otherwise. ``floor``: ``FLOOR`` in every
    value. Raises ``MetricError`` for other shapes, values outside [0, 1] and NaN.
    """
    check_pair(video, reference, "motion", smallest=1)
    if len(video) < _FEWEST:
        raise MetricError(f"motion: needs at least {_FEWEST} frames, found {len(video)}")
    wanted = reference.diff(dim=0)
    error, size = (
        float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in (video.diff(dim=0) - wanted, wanted)
    )
    return error / max(size, FLOOR * math.sqrt(wanted.numel()))

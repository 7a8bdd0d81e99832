"""LPIPS: learned perceptual distance of image pairs (Zhang et al., CVPR 2018), with pinned weights and no fallback."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlparse

import msgspec
import torch

from qregress.errors import nearest, one_line
from qregress.metrics.names import LPIPS_NAMES as NAMES
from qregress.metrics.shift_tolerant import load_shift_tolerant
from qregress.metrics.tensors import check_pair, exact_float32
from qregress.metrics.weights import MetricError, WeightsId, digest_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from torch import Tensor
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

__all__ = ["NAMES", "Backbone", "Lpips", "backbone", "load_lpips"]

_SMALLEST = 32  # px a side: below it AlexNet's and SqueezeNet's last pools have nothing left to pool
_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class Lpips:
    """One perceptual distance with the identity of its weights."""

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor], weights: WeightsId, device: str) -> None:
        self._distance = distance
        self._device = device
        self.weights = weights

    def distance(self, a: Tensor, b: Tensor) -> list[float]:
        """Distance of each pair, 0 for identical images.

        ``a`` and ``b`` are float32 [n, 3, h, w] in [0, 1], 32 px a side or more. Pairs go through one by one, so that
        a score depends on its own pair alone and memory does not grow with ``n``. Raises ``MetricError`` for shapes
        that differ (nothing is ever resized), values outside [0, 1] and NaN.
        """
        check_pair(a, b, self.weights.name, _SMALLEST)
        with exact_float32():
            return [
                float(self._distance(one[None].to(self._device), other[None].to(self._device)))
                for one, other in zip(a, b, strict=True)
            ]


def load_lpips(name: str, device: str = "cpu") -> Lpips:
    """Load ``"st-alex"`` (shift-tolerant LPIPS, ships with a package) or torchmetrics' ``alex``, ``vgg``, ``squeeze``.

    torchmetrics brings the calibrated heads; the backbone comes from torchvision's cache under ``TORCH_HOME``, or is
    downloaded into it. Raises ``MetricError`` with one line for an unknown name and for weights that cannot be had.
    """
    if name not in NAMES:
        raise MetricError(f"lpips = '{name}': {nearest(name, NAMES)}")
    if name == "st-alex":
        net, weights = load_shift_tolerant()
        return Lpips(net.to(device), weights, device)
    metric = _torchmetrics(name)
    weights = WeightsId(f"torchmetrics/{name}", digest_tensors(metric.net.state_dict()))
    metric = metric.to(device)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        value = cast("Tensor", metric(a, b))
        metric.reset()  # it would keep a running mean over all pairs
        return value

    return Lpips(distance, weights, device)


class Backbone(msgspec.Struct, frozen=True):
    """Torchvision's weights under one of torchmetrics' names: origin, cached file, size (0: unknown)."""

    url: str
    file: Path
    mebibytes: float


def backbone(name: str) -> Backbone:
    """The backbone of ``alex``, ``vgg`` or ``squeeze``, cached or not; a file's name has its SHA-256's start."""
    import torchvision

    weights = getattr(torchvision.models, _BACKBONES[name]).DEFAULT
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
    return Backbone(str(weights.url), file, float(weights.meta.get("_file_size", 0)))


def _torchmetrics(name: str) -> LearnedPerceptualImagePatchSimilarity:
    """Torchmetrics' LPIPS on the CPU; whatever keeps its backbone from loading becomes one line."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    known = backbone(name)
    url, file = known.url, known.file
    net_type = cast("Literal['alex', 'vgg', 'squeeze']", name)
    was_there = file.is_file()
    try:
        return LearnedPerceptualImagePatchSimilarity(net_type=net_type, normalize=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:  # URLError is an OSError
        reason = one_line(error, 120)
        if was_there:
            problem = f"{file} is not torchvision's backbone ({reason}); replace it with {url}"
        else:
            problem = (
                f"{file.name} is not in {file.parent} and cannot be downloaded ({reason}); put {url} there, "
                "or set TORCH_HOME to a cache that has it"
            )
        raise MetricError(f"lpips = '{name}': {problem}, or use 'st-alex', which needs no download") from error

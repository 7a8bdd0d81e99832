"""A denoiser that learns with quantized weights: what is trained, what it computes with, and what is left of it."""

from __future__ import annotations

import copy
import math
from typing import Any

import msgspec
import torch
from optimum.quanto import AffineOptimizer
from optimum.quanto.nn import QModuleMixin
from torch import nn

from qregress.quantize import quanto
from qregress.quantize.base import Spec

_CLIPS = 15  # ranges that are tried for a group of weights
_NARROWEST = 0.3  # of them, as part of the whole


class Student:
    """A float32 denoiser whose weights are, whenever ``quantize`` is called, what quanto makes of latent ones."""

    def __init__(self, teacher: nn.Module, spec: Spec) -> None:
        self.module = copy.deepcopy(teacher).requires_grad_(True)
        latent = copy.deepcopy(self.module)
        quanto.declare(latent, msgspec.structs.replace(spec, activations=None))
        self._pairs = [
            (part, self.module.get_submodule(name).get_parameter("weight"))
            for name, part in latent.named_modules()
            if isinstance(part, QModuleMixin) and part.weight_qtype is not None
        ]
        for part, _ in self._pairs:
            if isinstance(part.optimizer, AffineOptimizer):
                part.weight.copy_(_clipped(part))
        quantized = {id(weight) for _, weight in self._pairs}
        rest = [parameter for parameter in self.module.parameters() if id(parameter) not in quantized]
        self.parameters = [*(part.weight for part, _ in self._pairs), *rest]

    def quantize(self) -> None:
        """Put the latent weights' levels into the module."""
        for part, weight in self._pairs:
            weight.copy_(_levels(part, part.weight))

    def collect(self) -> None:
        """Hand the gradients of the levels on to the latent weights, and take them off the levels."""
        for part, weight in self._pairs:
            part.weight.grad, weight.grad = weight.grad, None

    def copy_into(self, module: nn.Module) -> nn.Module:
        """An unquantized module with this one's parameters, rounded to its dtypes.

        Of quantized weights the levels: rounding would move latent weights over the border between two of them.
        """
        self.quantize()
        for own, other in zip(module.parameters(), self.module.parameters(), strict=True):
            own.copy_(other)
        return module


def _levels(part: Any, weight: torch.Tensor) -> torch.Tensor:
    """What a quantized weight stands for; of packed types without packing, which takes most of the time."""
    values: torch.Tensor
    if not isinstance(part.optimizer, AffineOptimizer):
        values = part.qweight.dequantize()
        return values
    bits, size = part.weight_qtype.bits, part.weight_group_size
    scale, shift = part.optimizer(weight, qtype=part.weight_qtype, axis=0, group_size=size)
    data = torch.ops.quanto.quantize_affine(weight, bits=bits, axis=0, group_size=size, scale=scale, shift=shift)
    values = (data * scale - shift).reshape(weight.shape)
    return values


def _clipped(part: Any) -> torch.Tensor:
    """A module's weight with each group cut off where its levels lie best, by squared error.

    Quanto's levels span a group from its least to its greatest weight: with four of them, mostly beside the weights.
    """
    weight: torch.Tensor = part.weight.detach()
    groups = weight.reshape(-1, part.weight_group_size or weight[0].numel())
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    middle, half = (low + high) / 2, (high - low) / 2
    best, least = groups, torch.full_like(low, math.inf)
    for ratio in torch.linspace(_NARROWEST, 1.0, _CLIPS).tolist():
        cut = torch.minimum(torch.maximum(groups, middle - ratio * half), middle + ratio * half)
        levels = _levels(part, cut.reshape(weight.shape)).reshape(groups.shape)
        error = (levels - groups).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, cut, best), torch.minimum(error, least)
    return best.reshape(weight.shape)

"""Layers whose kernels are sound, or have a fault put behind them, and what is told of those."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from qregress.quantize import fidelity, load_backend
from qregress.quantize.base import Spec
from qregress.quantize.fidelity import Pending
from qregress.quantize.quanto import apply
from qregress.record import LayerFidelity

TOKENS = 64

Fault = Callable[[nn.Linear, torch.Tensor, torch.Tensor], torch.Tensor]


def layer(weights: str, dtype: torch.dtype, inputs: int = 256, outputs: int = 192, **fields: Any) -> nn.Sequential:
    """A quantized linear layer with seeded weights and a bias."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, outputs, **fields)).to(dtype)
    apply(model, Spec(weights=weights))
    return model


def compared(model: nn.Sequential, x: torch.Tensor, fault: Fault | None = None) -> LayerFidelity:
    """The layer's own forward, or that of a kernel with a fault."""
    if fault is not None:
        break_layer(model[0], fault)

    def run(_: Pending) -> None:
        with torch.no_grad():
            model(x)

    found = fidelity.examine({"model": model}, {"model": nn.Module()}, load_backend("quanto"), run)
    (only,) = found["model"].layers
    return only


def break_layer(module: Any, fault: Fault) -> None:
    """Put a fault behind a layer's own forward."""
    healthy = module.forward
    module.forward = lambda x: fault(module, x, healthy(x))


def activations(inputs: int, dtype: torch.dtype, tokens: int = TOKENS) -> torch.Tensor:
    """Of several sizes, with a mean, as behind an activation function."""
    made = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(1))
    return nn.functional.silu(2 * made).to(dtype)


def not_a_number(_: nn.Linear, __: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A fault: of one token."""
    changed = y.clone()
    changed[3] = math.nan
    return changed

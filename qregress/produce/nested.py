"""The tensors in what modules are called with and return, however deep they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def to(value: torch.Tensor, dtype: torch.dtype | None = None, device: torch.device | None = None) -> torch.Tensor:
    """A tensor of its own; only floating-point ones change their dtype."""
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None, copy=True)


def nested(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The same arguments or outputs with their tensors changed, however deep they lie."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        found = {name: nested(change, part) for name, part in value.items()}
        return found if type(value) is dict else type(value)(**found)  # diffusers' outputs are dicts too
    if type(value) in {list, tuple}:
        return type(value)(nested(change, part) for part in value)
    return value


def tensors(value: Any) -> list[torch.Tensor]:
    """The floating-point tensors in what a module returns, in their order."""
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.extend([tensor] if tensor.is_floating_point() else [])
        return tensor

    nested(keep, value)
    return found

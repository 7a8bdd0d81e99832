"""What the rest of qregress knows of a quantization library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import nn


class Backend(Protocol):
    """A quantization library. All methods act on one component of a pipeline, a plain ``nn.Module``."""

    def prepare(self, weights: Iterable[str], device: str, say: Callable[[str], None]) -> str | None:
        """Build what these weight types need, once and outside every timing.

        ``say`` puts a line on the screen before something slow starts. Returns one line that says what is missing
        where this machine cannot run them, else ``None``.
        """

    def eligible(self, module: nn.Module) -> bool:
        """Whether the library can quantize such a module's weight."""

    def quantize(self, component: nn.Module, weights: str, exclude: tuple[str, ...]) -> None:
        """Quantize a component in place, modules whose name matches a pattern of ``exclude`` left out."""

    def weight_type(self, weight: torch.Tensor) -> str | None:
        """The weight type of a quantized tensor as a configuration names it, ``None`` for a plain tensor."""

"""The pipeline families that `training.denoise` can train: one module each, and one line in BUILDERS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from training.families import pixart_sigma


class Family(Protocol):
    """What training needs to know of a pipeline family."""

    modules: dict[str, nn.Module]
    """The trained components, by their name in the pipeline."""

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids of captions (N, LONGEST) as the pipeline would make them; the empty prompt where not `keep`."""

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """The denoiser's output for (N, C, h, w) latents, without channels that the pipeline ignores."""

    def pipeline(self, vae: nn.Module) -> Any:
        """The real Diffusers pipeline around the components and the shared autoencoder."""


BUILDERS: dict[str, Callable[[dict[str, Any], Path], Family]] = {"pixart-sigma": pixart_sigma.build}

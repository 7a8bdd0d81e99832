"""The pipeline families that `training.denoise` can train: one module each, and one line in BUILDERS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from training.families import aura_flow, hunyuan_dit, latte, lumina, pixart, sd3


class Family(Protocol):
    """What training needs to know of a pipeline family."""

    modules: dict[str, nn.Module]
    """The trained components, by their name in the pipeline."""

    frozen: dict[str, nn.Module]
    """Components that another family trained."""

    blocks: list[nn.Module]
    """The repeated layers of all components, which are worth compiling."""

    @property
    def parts(self) -> tuple[int, ...]:
        """How many of a caption's token ids each text encoder reads; captions are dropped for each of them apart."""

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids of captions (N, LONGEST) as the pipeline would make them; the empty prompt where not `keep`."""

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """The denoiser's output for latents (N, C, [frames,] h, w), without channels that the pipeline ignores."""

    def pipeline(self, vae: nn.Module) -> Any:
        """The real Diffusers pipeline around the components and the shared autoencoder."""


BUILDERS: dict[str, Callable[[dict[str, Any], Path], Family]] = {
    "pixart-sigma": pixart.build_sigma,
    "pixart-alpha": pixart.build_alpha,
    "sd3": sd3.build,
    "aura-flow": aura_flow.build,
    "hunyuan-dit": hunyuan_dit.build,
    "lumina": lumina.build,
    "latte": latte.build,
}

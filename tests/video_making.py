"""A Latte to test videos with, as its training starts: the pocket PixArt-Sigma frame by frame."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, LattePipeline

from training.families import latte
from training.runtime import ZOO

_RECIPE = Path(latte.__file__).parents[1] / "recipes" / "latte.toml"


def make_latte(*, frames: int, layers: int = 8, disturbed: float = 0.02) -> Any:
    """A Latte of the first layers of the pocket PixArt-Sigma, in float32, with the pocket VAE.

    Temporal blocks begin as the identity; what they return is ``disturbed`` by noise of that standard deviation, so
    that frames depend on each other. With all 8 layers and without what it adds for a frame's place
    (``temp_pos_embed``, which no file keeps) its frames are Sigma's images.
    """
    recipe = tomllib.loads(_RECIPE.read_text(encoding="utf-8"))
    model = recipe["model"] | {"layers": layers, "start_layers": list(range(layers)), "frames": frames}
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(0)
        (Path(scratch) / "pixart-sigma").symlink_to(ZOO / "pixart-sigma")
        family = latte.build(model, Path(scratch) / "latte")
        for block in family.transformer.temporal_transformer_blocks:
            for last in (block.attn1.to_out[0], block.ff.net[-1]):
                last.weight.data += disturbed * torch.randn_like(last.weight)
    vae = AutoencoderKL.from_pretrained(ZOO / "shared" / recipe["shared"]["vae"], torch_dtype=torch.float32)
    pipeline: LattePipeline = family.pipeline(vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

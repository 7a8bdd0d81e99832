"""Pocket Latte: `LatteTransformer3DModel` with PixArt-Sigma's T5 encoder.

As the full-size Latte does, it starts from a PixArt: its spatial blocks are some of the pocket PixArt-Sigma's, its
temporal blocks begin as the identity, and the encoder stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import LattePipeline, LatteTransformer3DModel, PixArtTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5EncoderModel

from training.families import encoders
from training.families.pixart import solver, start_from

LENGTH = 120  # fixed by the pipeline
SHORT = 32  # tokens that a caption can have


class Latte:
    """The components of a pocket Latte, called in training exactly as the pipeline calls them: padding is seen."""

    def __init__(self, model: dict[str, Any], folder: Path) -> None:
        sigma = folder.parent / "pixart-sigma"
        self.tokenizer = encoders.t5_tokenizer(sigma / "tokenizer", SHORT)
        self.text_encoder = T5EncoderModel.from_pretrained(sigma / "text_encoder", torch_dtype=torch.float32)
        self.text_encoder.requires_grad_(False)
        self.transformer = LatteTransformer3DModel(
            num_attention_heads=model["heads"],
            attention_head_dim=model["head_width"],
            in_channels=4,
            out_channels=8,  # the second half is a learned variance, which the solver never reads
            num_layers=model["layers"],
            cross_attention_dim=model["heads"] * model["head_width"],
            attention_bias=True,
            sample_size=16,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=model["text_width"],
            video_length=model["frames"],
        )
        start = PixArtTransformer2DModel.from_pretrained(sigma / "transformer", torch_dtype=torch.float32)
        start_from(self.transformer, start, model["start_layers"])
        for block in self.transformer.temporal_transformer_blocks:
            for last in (block.attn1.to_out[0], block.ff.net[-1]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer}
        self.frozen: dict[str, nn.Module] = {"text_encoder": self.text_encoder}
        self.blocks: list[nn.Module] = [
            *self.transformer.transformer_blocks,
            *self.transformer.temporal_transformer_blocks,
            *self.text_encoder.encoder.block,
        ]
        self._table = encoders.table(self.tokenizer, SHORT)
        self.parts = (SHORT,)

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids, without the padding that the pipeline adds up to 120."""
        return self._table(lines, keep)

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted noise, shape of `noisy`, (N, C, frames, h, w)."""
        tokens = functional.pad(tokens, (0, LENGTH - SHORT), value=self._table.pad)
        states = self.text_encoder(input_ids=tokens, attention_mask=(tokens != self._table.pad).long())[0]
        output: Tensor = self.transformer(noisy, timestep=timestep, encoder_hidden_states=states, return_dict=False)[0]
        return output[:, : noisy.shape[1]]

    def pipeline(self, vae: nn.Module) -> LattePipeline:
        """The pipeline with its solver."""
        return LattePipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=vae,
            transformer=self.transformer,
            scheduler=solver(),
        )


def build(model: dict[str, Any], folder: Path) -> Latte:
    """The family for the `[model]` table of a recipe, from the PixArt-Sigma in the folder beside `folder`."""
    return Latte(model, folder)

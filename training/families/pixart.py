"""Pocket PixArt-Sigma and PixArt-Alpha: `PixArtTransformer2DModel` with a T5 encoder.

Sigma's two parts are trained from nothing. Alpha takes Sigma's encoder as it is, as the full-size models share
theirs, and its denoiser starts from some of Sigma's layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from torch import Tensor, nn
from transformers import T5EncoderModel

from training.families import encoders


def solver() -> DPMSolverMultistepScheduler:
    """The solver that an epsilon-predicting denoiser on the linear schedule is meant for."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="epsilon",
        final_sigmas_type="zero",
    )


class PixArt:
    """The components of a pocket PixArt, called in training exactly as the pipeline calls them."""

    def __init__(self, model: dict[str, Any], folder: Path, *, alpha: bool) -> None:
        length: int = model["max_sequence_length"]
        self.kind = PixArtAlphaPipeline if alpha else PixArtSigmaPipeline
        sigma = folder.parent / "pixart-sigma"
        self.tokenizer = encoders.t5_tokenizer((sigma if alpha else folder) / "tokenizer", length)
        self.transformer = PixArtTransformer2DModel(
            num_attention_heads=model["heads"],
            attention_head_dim=model["head_width"],
            num_layers=model["layers"],
            in_channels=4,
            out_channels=8,  # the second half is PixArt's learned variance, which its solver never reads
            cross_attention_dim=model["heads"] * model["head_width"],
            caption_channels=model["text_width"],
            sample_size=16,  # 128 would switch on the resolution conditions of the 1024-pixel model
            patch_size=2,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            attention_bias=True,
            use_additional_conditions=False,
        )
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer}
        if alpha:
            self.text_encoder = T5EncoderModel.from_pretrained(sigma / "text_encoder", torch_dtype=torch.float32)
            self.text_encoder.requires_grad_(False)
            start = PixArtTransformer2DModel.from_pretrained(sigma / "transformer", torch_dtype=torch.float32)
            if model["start_layers"]:
                start_from(self.transformer, start, model["start_layers"])
        else:
            self.text_encoder = encoders.t5(model, self.tokenizer)
            self.modules["text_encoder"] = self.text_encoder
        self.frozen: dict[str, nn.Module] = {"text_encoder": self.text_encoder} if alpha else {}
        self.blocks: list[nn.Module] = [*self.transformer.transformer_blocks, *self.text_encoder.encoder.block]
        self._table = encoders.table(self.tokenizer, length)
        self.parts = (length,)

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids, shape (N, max_sequence_length)."""
        return self._table(lines, keep)

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted noise, shape of `noisy`; padding is masked in both models, as in the pipeline."""
        mask = (tokens != self._table.pad).long()
        states = self.text_encoder(input_ids=tokens, attention_mask=mask)[0]
        output: Tensor = self.transformer(
            noisy,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=timestep,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return output[:, : noisy.shape[1]]

    def pipeline(self, vae: nn.Module) -> Any:
        """The pipeline with its solver."""
        return self.kind(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=vae,
            transformer=self.transformer,
            scheduler=solver(),
        )


def start_from(model: nn.Module, other: nn.Module, layers: list[int]) -> None:
    """Copy a PixArt denoiser's weights: `layers` of its blocks in order, and all else whose name and shape agree."""
    prefix = "transformer_blocks."
    chosen = {f"{prefix}{old}.": f"{prefix}{new}." for new, old in enumerate(layers)}
    weights = {}
    for name, tensor in other.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = tensor
        for old, new in chosen.items():
            if name.startswith(old):
                weights[new + name.removeprefix(old)] = tensor
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)


def build_sigma(model: dict[str, Any], folder: Path) -> PixArt:
    """The family for the `[model]` table of a recipe; the tokenizer is made in `folder` where it is missing."""
    return PixArt(model, folder, alpha=False)


def build_alpha(model: dict[str, Any], folder: Path) -> PixArt:
    """Alpha: with the tokenizer, the encoder and the first weights of the Sigma in the folder beside `folder`."""
    return PixArt(model, folder, alpha=True)

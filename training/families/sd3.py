"""Pocket Stable Diffusion 3: `SD3Transformer2DModel` with two CLIP encoders and a T5, all trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from training import text
from training.families import encoders


class StableDiffusion3:
    """The components of a pocket SD3, called in training exactly as the pipeline calls them: padding is seen."""

    def __init__(self, model: dict[str, Any], folder: Path, shift: float) -> None:
        length, clip_length = model["max_sequence_length"], model["clip_length"]
        self.shift = shift
        for name in ("tokenizer", "tokenizer_2"):
            if not (folder / name).is_dir():
                text.save_bpe_tokenizer(folder / name, clip_length, gemma=False)
        self.tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))
        self.tokenizer_2 = CLIPTokenizer.from_pretrained(str(folder / "tokenizer_2"))
        self.tokenizer_3 = encoders.t5_tokenizer(folder / "tokenizer_3", length)
        self.text_encoder = _clip(model, self.tokenizer, "quick_gelu")
        self.text_encoder_2 = _clip(model, self.tokenizer_2, "gelu")
        self.text_encoder_3 = encoders.t5(model, self.tokenizer_3)
        width = model["heads"] * model["head_width"]
        self.transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=model["layers"],
            attention_head_dim=model["head_width"],
            num_attention_heads=model["heads"],
            joint_attention_dim=model["text_width"],
            caption_projection_dim=width,
            pooled_projection_dim=2 * model["clip_width"],
            pos_embed_max_size=8,
        )
        for block in self.transformer.transformer_blocks:
            # As in the paper: every block starts as the identity.
            for norm in (block.norm1, block.norm1_context):
                nn.init.zeros_(norm.linear.weight)
                nn.init.zeros_(norm.linear.bias)
        self.modules: dict[str, nn.Module] = {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
            "text_encoder_3": self.text_encoder_3,
        }
        self.frozen: dict[str, nn.Module] = {}
        self.blocks: list[nn.Module] = [
            *self.transformer.transformer_blocks,
            *self.text_encoder_3.encoder.block,
        ]
        for encoder in (self.text_encoder, self.text_encoder_2):
            self.blocks += _layers(encoder)
        self._clip_table = encoders.table(self.tokenizer, clip_length)
        self._table = encoders.table(self.tokenizer_3, length)
        self.parts = (clip_length, clip_length, length)

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids of the three encoders, one after another."""
        clip = self._clip_table(lines, keep)
        return torch.cat((clip, clip, self._table(lines, keep)), dim=1)

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted velocity, shape of `noisy`."""
        first, second, third = tokens.split(self.parts, dim=1)
        one = self.text_encoder(first, output_hidden_states=True)
        two = self.text_encoder_2(second, output_hidden_states=True)
        states = self.text_encoder_3(third)[0]
        clip = torch.cat((one.hidden_states[-2], two.hidden_states[-2]), dim=-1)
        clip = functional.pad(clip, (0, states.shape[-1] - clip.shape[-1]))
        output: Tensor = self.transformer(
            hidden_states=noisy,
            timestep=timestep,
            encoder_hidden_states=torch.cat((clip.to(states.dtype), states), dim=-2),
            pooled_projections=torch.cat((one[0], two[0]), dim=-1),
            return_dict=False,
        )[0]
        return output

    def pipeline(self, vae: nn.Module) -> StableDiffusion3Pipeline:
        """The pipeline with the scheduler that the denoiser was trained for."""
        return StableDiffusion3Pipeline(
            transformer=self.transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=self.shift),
            vae=vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            text_encoder_2=self.text_encoder_2,
            tokenizer_2=self.tokenizer_2,
            text_encoder_3=self.text_encoder_3,
            tokenizer_3=self.tokenizer_3,
        )


def _clip(model: dict[str, Any], tokenizer: CLIPTokenizer, activation: str) -> CLIPTextModelWithProjection:
    """A CLIP text encoder. The pipeline takes its last layer but one, and the pooled vector at the end token."""
    width = model["clip_width"]
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=encoders.rows(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=model["clip_layers"],
            num_attention_heads=model["clip_heads"],
            max_position_embeddings=model["clip_length"],
            hidden_act=activation,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            # With another one the pooled vector would be the same for every prompt.
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _layers(encoder: nn.Module) -> list[nn.Module]:
    """The layers of a CLIP, wherever this version of transformers keeps them."""
    return next(list(part) for name, part in encoder.named_modules() if name.endswith("encoder.layers"))


def build(model: dict[str, Any], folder: Path) -> StableDiffusion3:
    """The family for the `[model]` table of a recipe; tokenizers are made in `folder` where they are missing."""
    return StableDiffusion3(model, folder, model["shift"])

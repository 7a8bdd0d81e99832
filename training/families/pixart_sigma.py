"""Pocket PixArt-Sigma: `PixArtTransformer2DModel` with a T5 encoder, both trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from training import text


class PixArtSigma:
    """The components of a pocket PixArt-Sigma, called in training exactly as the pipeline calls them."""

    def __init__(self, model: dict[str, Any], folder: Path) -> None:
        self.length: int = model["max_sequence_length"]
        if not (folder / "tokenizer").is_dir():
            text.save_t5_tokenizer(folder / "tokenizer", self.length)
        self.tokenizer = T5Tokenizer.from_pretrained(str(folder / "tokenizer"))
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
        self.text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=-(-len(self.tokenizer) // 128) * 128,
                d_model=model["text_width"],
                d_kv=model["text_width"] // model["text_heads"],
                d_ff=2 * model["text_width"],
                num_layers=model["text_layers"],
                num_heads=model["text_heads"],
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                is_encoder_decoder=False,
                use_cache=False,
                tie_word_embeddings=False,
            )
        )
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer, "text_encoder": self.text_encoder}
        self._table = text.WordTable(self._encode, self.tokenizer.pad_token_id, self.length)

    def _encode(self, prompts: list[str]) -> Tensor:
        ids = self.tokenizer(
            prompts, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        ).input_ids
        return torch.as_tensor(ids)

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

    def pipeline(self, vae: nn.Module) -> PixArtSigmaPipeline:
        """The pipeline with the solver that the denoiser is meant for."""
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=1000,
            beta_start=0.0001,
            beta_end=0.02,
            beta_schedule="linear",
            algorithm_type="dpmsolver++",
            solver_order=2,
            prediction_type="epsilon",
            final_sigmas_type="zero",
        )
        return PixArtSigmaPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=vae,
            transformer=self.transformer,
            scheduler=scheduler,
        )


def build(model: dict[str, Any], folder: Path) -> PixArtSigma:
    """The family for the `[model]` table of a recipe; the tokenizer is made in `folder` where it is missing."""
    return PixArtSigma(model, folder)

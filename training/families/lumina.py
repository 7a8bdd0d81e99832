"""Pocket Lumina-Next: `LuminaNextDiT2DModel` with a Gemma, both trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel, LuminaPipeline
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from torch import Tensor, nn
from transformers import GemmaConfig, GemmaModel, GemmaTokenizer

from training import text
from training.families import encoders

LENGTH = 24  # the pipeline pads to a multiple of 8; the longest caption has 22 words and a start token
ROTARY = 384  # positions along each side, as in the pipeline
TOKENS = 64  # patches of an image, as the pipeline takes them from the denoiser's sample size


class Lumina:
    """The components of a pocket Lumina, called in training exactly as the pipeline calls them."""

    def __init__(self, model: dict[str, Any], folder: Path) -> None:
        self.shift: float = model["shift"]
        if not (folder / "tokenizer").is_dir():
            text.save_bpe_tokenizer(folder / "tokenizer", LENGTH, gemma=True)
        self.tokenizer = GemmaTokenizer.from_pretrained(str(folder / "tokenizer"))
        self.text_encoder = GemmaModel(
            GemmaConfig(
                vocab_size=encoders.rows(self.tokenizer),
                hidden_size=model["text_width"],
                intermediate_size=2 * model["text_width"],
                num_hidden_layers=model["text_layers"],  # the pipeline never reads the last one
                num_attention_heads=model["text_heads"],
                num_key_value_heads=model["text_heads"],
                head_dim=model["text_width"] // model["text_heads"],
                max_position_embeddings=256,
                pad_token_id=self.tokenizer.pad_token_id,
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                use_cache=False,
            )
        )
        width = model["heads"] * model["head_width"]
        self.transformer = LuminaNextDiT2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            hidden_size=width,
            num_layers=model["layers"],
            num_attention_heads=model["heads"],
            num_kv_heads=model["heads"],
            multiple_of=128,
            learn_sigma=True,
            qk_norm=True,
            cross_attention_dim=model["text_width"],
        )
        nn.init.zeros_(self.transformer.pad_token)  # the constructor leaves it as it finds it
        for block in self.transformer.layers:
            # At zero, as by default, it takes thousands of steps until captions are seen at all.
            nn.init.constant_(block.gate, 0.5)
        self.rotary = get_2d_rotary_pos_embed_lumina(
            model["head_width"], ROTARY, ROTARY, linear_factor=1.0, ntk_factor=1.0
        )
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer, "text_encoder": self.text_encoder}
        self.frozen: dict[str, nn.Module] = {}
        self.blocks: list[nn.Module] = [*self.transformer.layers, *self.text_encoder.layers]
        self._table = encoders.table(self.tokenizer, LENGTH)
        self.parts = (LENGTH,)

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids, shape (N, LENGTH)."""
        return self._table(lines, keep)

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted velocity, shape of `noisy`; the denoiser's own time and direction run from noise to data."""
        mask = (tokens != self._table.pad).long()
        states = self.text_encoder(tokens, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        self.rotary = self.rotary.to(noisy.device)
        output: Tensor = self.transformer(
            hidden_states=noisy,
            timestep=1 - timestep / 1000,
            encoder_hidden_states=states,
            encoder_mask=mask,
            image_rotary_emb=self.rotary,
            cross_attention_kwargs={"base_sequence_length": TOKENS},
            return_dict=False,
        )[0]
        return -output[:, : noisy.shape[1]]

    def pipeline(self, vae: nn.Module) -> LuminaPipeline:
        """The pipeline with the scheduler that the denoiser was trained for."""
        return LuminaPipeline(
            transformer=self.transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=self.shift),
            vae=vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
        )


def build(model: dict[str, Any], folder: Path) -> Lumina:
    """The family for the `[model]` table of a recipe; the tokenizer is made in `folder` where it is missing."""
    return Lumina(model, folder)

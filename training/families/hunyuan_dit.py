"""Pocket Hunyuan DiT: `HunyuanDiT2DModel` with a BERT and a T5 encoder, all trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, BertTokenizer

from training import text
from training.families import encoders

BERT_LENGTH, T5_LENGTH = 77, 256  # fixed by the pipeline
SHORT = 24  # tokens that a caption can have
GRID = 8  # patches along each side


class HunyuanDiT:
    """The components of a pocket Hunyuan DiT.

    The pipeline pads every prompt to 77 and 256 tokens. In training the encoders see fewer, with the same result:
    BERT's padding is masked and replaced, and T5's padded positions are all alike once they are further from the
    caption than its relative positions reach (`text_distance`), so the last of them stands for all that follow.
    """

    def __init__(self, model: dict[str, Any], folder: Path) -> None:
        if not (folder / "tokenizer").is_dir():
            text.save_bert_tokenizer(folder / "tokenizer", BERT_LENGTH)
        self.tokenizer = BertTokenizer.from_pretrained(str(folder / "tokenizer"))
        self.tokenizer_2 = encoders.t5_tokenizer(folder / "tokenizer_2", T5_LENGTH)
        self.seen = SHORT + model["text_distance"]
        width = model["heads"] * model["head_width"]
        self.text_encoder = BertModel(
            BertConfig(
                vocab_size=encoders.rows(self.tokenizer),
                hidden_size=model["text_width"],
                num_hidden_layers=model["bert_layers"],
                num_attention_heads=model["text_heads"],
                intermediate_size=2 * model["text_width"],
                max_position_embeddings=BERT_LENGTH,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        )
        self.text_encoder_2 = encoders.t5(model, self.tokenizer_2)
        self.transformer = HunyuanDiT2DModel(
            num_attention_heads=model["heads"],
            attention_head_dim=model["head_width"],
            in_channels=4,
            patch_size=2,
            sample_size=16,
            hidden_size=width,
            num_layers=model["layers"],
            mlp_ratio=model["mlp_ratio"],
            learn_sigma=True,
            cross_attention_dim=model["text_width"],
            cross_attention_dim_t5=model["text_width"],
            pooled_projection_dim=width,
            text_len=BERT_LENGTH,
            text_len_t5=T5_LENGTH,
            use_style_cond_and_image_meta_size=False,  # as from version 1.2 on
        )
        crops = get_resize_crop_region_for_grid((GRID, GRID), 512 // 8 // 2)
        rotary = get_2d_rotary_pos_embed(model["head_width"], crops, (GRID, GRID), output_type="pt")
        self.rotary: tuple[Tensor, ...] = tuple(rotary)
        self.modules: dict[str, nn.Module] = {
            "transformer": self.transformer,
            "text_encoder": self.text_encoder,
            "text_encoder_2": self.text_encoder_2,
        }
        self.frozen: dict[str, nn.Module] = {}
        self.blocks: list[nn.Module] = [
            *self.transformer.blocks,
            *self.text_encoder.encoder.layer,
            *self.text_encoder_2.encoder.block,
        ]
        self._bert_table = encoders.table(self.tokenizer, SHORT)
        self._table = encoders.table(self.tokenizer_2, SHORT)
        self.parts = (SHORT, SHORT)

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids of both encoders, one after another."""
        return torch.cat((self._bert_table(lines, keep), self._table(lines, keep)), dim=1)

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted velocity of the diffusion (v), shape of `noisy`."""
        first, second = tokens.split(self.parts, dim=1)
        second = functional.pad(second, (0, self.seen - SHORT), value=self._table.pad)
        mask, mask_2 = (first != self._bert_table.pad).long(), (second != self._table.pad).long()
        bert = self.text_encoder(first, attention_mask=mask)[0]
        states = self.text_encoder_2(second, attention_mask=mask_2)[0]
        rest = states[:, -1:].expand(-1, T5_LENGTH - self.seen, -1)
        self.rotary = tuple(part.to(noisy.device) for part in self.rotary)
        output: Tensor = self.transformer(
            noisy,
            timestep.to(noisy.dtype),
            encoder_hidden_states=functional.pad(bert, (0, 0, 0, BERT_LENGTH - SHORT)),
            text_embedding_mask=functional.pad(mask, (0, BERT_LENGTH - SHORT)),
            encoder_hidden_states_t5=torch.cat((states, rest), dim=1),
            text_embedding_mask_t5=functional.pad(mask_2, (0, T5_LENGTH - self.seen)),
            image_rotary_emb=self.rotary,
            return_dict=False,
        )[0]
        return output[:, : noisy.shape[1]]

    def pipeline(self, vae: nn.Module) -> HunyuanDiTPipeline:
        """The pipeline with a deterministic solver: its own default draws noise, and clips latents at 1."""
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.03,
            beta_schedule="scaled_linear",
            algorithm_type="dpmsolver++",
            solver_order=2,
            prediction_type="v_prediction",
            final_sigmas_type="zero",
        )
        return HunyuanDiTPipeline(
            vae=vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            transformer=self.transformer,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            text_encoder_2=self.text_encoder_2,
            tokenizer_2=self.tokenizer_2,
        )


def build(model: dict[str, Any], folder: Path) -> HunyuanDiT:
    """The family for the `[model]` table of a recipe; tokenizers are made in `folder` where they are missing."""
    return HunyuanDiT(model, folder)

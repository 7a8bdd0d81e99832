"""Pocket AuraFlow: `AuraFlowTransformer2DModel` with a UMT5 encoder, both trained from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from training.families import encoders


class AuraFlow:
    """The components of a pocket AuraFlow, called in training exactly as the pipeline calls them."""

    def __init__(self, model: dict[str, Any], folder: Path) -> None:
        length: int = model["max_sequence_length"]
        self.shift: float = model["shift"]
        self.tokenizer = encoders.t5_tokenizer(folder / "tokenizer", length)
        self.text_encoder = encoders.t5(model, self.tokenizer, umt5=True)
        self.transformer = AuraFlowTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_mmdit_layers=model["joint_layers"],
            num_single_dit_layers=model["single_layers"],
            attention_head_dim=model["head_width"],
            num_attention_heads=model["heads"],
            joint_attention_dim=model["text_width"],
            caption_projection_dim=model["heads"] * model["head_width"],
            pos_embed_max_size=64,
        )
        blocks = [*self.transformer.joint_transformer_blocks, *self.transformer.single_transformer_blocks]
        for block in blocks:
            # Every block starts as the identity, as in SD3.
            for norm in (block.norm1, getattr(block, "norm1_context", None)):
                if norm is not None:
                    nn.init.zeros_(norm.linear.weight)
        self.modules: dict[str, nn.Module] = {"transformer": self.transformer, "text_encoder": self.text_encoder}
        self.frozen: dict[str, nn.Module] = {}
        self.blocks: list[nn.Module] = [*blocks, *self.text_encoder.encoder.block]
        self._table = encoders.table(self.tokenizer, length)
        self.parts = (length,)

    def tokens(self, lines: Tensor, keep: Tensor) -> Tensor:
        """Token ids, shape (N, max_sequence_length)."""
        return self._table(lines, keep)

    def predict(self, noisy: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """Predicted velocity, shape of `noisy`; states of padding are zero, and seen."""
        mask = (tokens != self._table.pad).long()
        states = self.text_encoder(input_ids=tokens, attention_mask=mask)[0]
        output: Tensor = self.transformer(
            noisy,
            encoder_hidden_states=states * mask.unsqueeze(-1),
            timestep=timestep / 1000,
            return_dict=False,
        )[0]
        return output

    def pipeline(self, vae: nn.Module) -> AuraFlowPipeline:
        """The pipeline with the scheduler that the denoiser was trained for."""
        return AuraFlowPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=vae,
            transformer=self.transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=self.shift),
        )


def build(model: dict[str, Any], folder: Path) -> AuraFlow:
    """The family for the `[model]` table of a recipe; the tokenizer is made in `folder` where it is missing."""
    return AuraFlow(model, folder)

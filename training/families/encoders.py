"""Small text encoders with their tokenizers, as several families use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

from training import text

ROWS = 128  # embeddings come in whole groups of int4 weights


def rows(tokenizer: Any) -> int:
    """Rows of an embedding for all ids of a tokenizer."""
    return -(-len(tokenizer) // ROWS) * ROWS


def table(tokenizer: Any, length: int) -> text.WordTable:
    """Captions to a tokenizer's ids, padded to `length`."""

    def encode(prompts: list[str]) -> Tensor:
        ids = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return torch.as_tensor(ids.input_ids)

    return text.WordTable(encode, tokenizer.pad_token_id, length)


def t5_tokenizer(folder: Path, length: int) -> T5Tokenizer:
    """The tokenizer in a folder, made there where it is missing."""
    if not folder.is_dir():
        text.save_t5_tokenizer(folder, length)
    return T5Tokenizer.from_pretrained(str(folder))


def t5(model: dict[str, Any], tokenizer: T5Tokenizer, *, umt5: bool = False) -> T5EncoderModel | UMT5EncoderModel:
    """A T5 encoder, or a UMT5 one: every layer has relative positions of its own there.

    Reads `text_width`, `text_layers`, `text_heads` and, where they differ from the width, `text_inner` and `text_ff`.
    """
    config = (UMT5Config if umt5 else T5Config)(
        vocab_size=rows(tokenizer),
        d_model=model["text_width"],
        d_kv=model.get("text_inner", model["text_width"]) // model["text_heads"],
        d_ff=model.get("text_ff", 2 * model["text_width"]),
        num_layers=model["text_layers"],
        num_heads=model["text_heads"],
        relative_attention_max_distance=model.get("text_distance", 128),
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
    )
    return (UMT5EncoderModel if umt5 else T5EncoderModel)(config)

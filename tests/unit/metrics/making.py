"""Scenes to score and a tiny untrained CLIP model to score with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from training import scenes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CAPTIONS = ("a small red circle", "a large blue square", "a green star above a pink ring")


def as_stored(images: Tensor) -> Tensor:
    """Images as they come back from a PNG: 256 levels, float32 in [0, 1]."""
    return (images * 255).round().clamp(0, 255) / 255


def draw_codes(count: int) -> Tensor:
    """Codes of ``count`` scenes of the pocket grammar, always the same ones."""
    return scenes.sample(count, torch.Generator().manual_seed(2022), held=None)


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write an untrained open_clip model with a word vocabulary of its own into ``folder``: 40 px, width 32."""
    import open_clip
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", "<start>", "<end>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(str(folder))

    text = {
        "context_length": 16, "vocab_size": len(vocabulary), "width": 32, "heads": 2, "layers": 1,
        "hf_tokenizer_name": "local", "pool_type": "argmax",
    }  # fmt: skip
    vision = {"image_size": 40, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    preprocess = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(16, vision, {k: v for k, v in text.items() if k != "hf_tokenizer_name"})
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder

"""The pocket CLIP's open_clip configuration."""

from __future__ import annotations

from typing import Any

from open_clip.model import CLIP

from training import text

LENGTH = 32  # tokens


def config() -> dict[str, Any]:
    """The content of open_clip_config.json: a small ViT on 128-pixel images and a small text tower."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {
                "image_size": 128, "layers": 6, "width": 128, "head_width": 32, "patch_size": 8, "mlp_ratio": 4.0,
            },
            "text_cfg": {
                "context_length": LENGTH, "vocab_size": len(text.WORDS) + 3, "hf_tokenizer_name": "pocket-clip",
                "width": 128, "heads": 4, "layers": 3, "mlp_ratio": 4.0, "pad_id": 0,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
    }  # fmt: skip


def build() -> CLIP:
    """A fresh model of `config()`."""
    model = config()["model_cfg"]
    return CLIP(model["embed_dim"], model["vision_cfg"], {**model["text_cfg"], "hf_tokenizer_name": None})

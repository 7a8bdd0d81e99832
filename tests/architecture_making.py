"""Full-size architectures made small, by nothing but other numbers in their tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 128}
_CLIP = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 512,
}
_VAE = {"block_out_channels": [16, 16, 32, 32], "layers_per_block": 1, "norm_num_groups": 8}
_PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "num_layers": 2,
    "cross_attention_dim": 64,
    "caption_channels": 64,
    "sample_size": 16,
}
_CALL = {"height": 128, "width": 128, "num_inference_steps": 3}
_BINNED = _CALL | {"use_resolution_binning": False}

#: Architecture -> configurations by component, and arguments of calls.
SMALL: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "pixart-sigma": ({"transformer": _PIXART | {"interpolation_scale": 1}, "text_encoder": _T5, "vae": _VAE}, _BINNED),
    "pixart-alpha": (
        {"transformer": _PIXART | {"use_additional_conditions": False}, "text_encoder": _T5, "vae": _VAE},
        _BINNED,
    ),
    "sd3": (
        {
            "transformer": {
                "num_layers": 2,
                "num_attention_heads": 2,
                "attention_head_dim": 32,
                "sample_size": 16,
                "joint_attention_dim": 64,
                "caption_projection_dim": 64,
                "pooled_projection_dim": 64,
                "pos_embed_max_size": 16,
            },
            "text_encoder": _CLIP | {"projection_dim": 32},
            "text_encoder_2": _CLIP | {"projection_dim": 32},
            "text_encoder_3": _T5,
            "vae": _VAE,
        },
        _CALL,
    ),
    "aura-flow": (
        {
            "transformer": {
                "num_mmdit_layers": 1,
                "num_single_dit_layers": 2,
                "num_attention_heads": 2,
                "attention_head_dim": 32,
                "sample_size": 16,
                "joint_attention_dim": 64,
                "caption_projection_dim": 64,
                "pos_embed_max_size": 64,
            },
            "text_encoder": _T5,
            "vae": _VAE,
        },
        _CALL,
    ),
    "hunyuan-dit": (
        {
            "transformer": {
                "num_attention_heads": 2,
                "attention_head_dim": 32,
                "hidden_size": 64,
                "num_layers": 4,
                "sample_size": 16,
                "cross_attention_dim": 64,
                "cross_attention_dim_t5": 64,
                "pooled_projection_dim": 64,
            },
            "text_encoder": {
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 128,
                "vocab_size": 128,
            },
            "text_encoder_2": _T5,
            "vae": _VAE,
        },
        _BINNED,
    ),
    "lumina": (
        {
            "transformer": {
                "sample_size": 16,
                "hidden_size": 128,
                "num_layers": 2,
                "num_attention_heads": 4,
                "num_kv_heads": 2,
                "multiple_of": 64,
                "cross_attention_dim": 64,
            },
            "text_encoder": {
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "head_dim": 32,
                "intermediate_size": 128,
                "vocab_size": 256,
            },
            "vae": _VAE,
        },
        _CALL,
    ),
    "latte": (
        {"transformer": _PIXART | {"video_length": 3}, "text_encoder": _T5, "vae": _VAE},
        _CALL | {"video_length": 3},
    ),
}


def write_small(name: str, path: Path) -> Path:
    """A file that a source ``random:`` may name: an architecture of the package, made small."""
    configs, call = SMALL[name]
    lines = [f"base = {json.dumps(name)}", f"call = {_inline(call)}"]
    for component, config in configs.items():
        lines += [f"[components.{component}]", f"config = {_inline(config)}"]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _inline(table: dict[str, Any]) -> str:
    """An inline table: numbers, booleans and lists of TOML are those of JSON."""
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + "}"

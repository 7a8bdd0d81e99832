"""Quantization while loading, by Diffusers and transformers: what they quantize, and what they ignore."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from qregress import pipelines
from qregress.errors import ConfigError
from qregress.produce.memory import stored, watch
from qregress.quantize import load_backend, load_saver
from qregress.quantize.base import Spec
from tests.quantizing import (
    BLOCKS,
    DENOISER,
    ENCODER,
    ENCODER_BLOCKS,
    ROUNDING,
    call_both,
    call_denoiser,
    distance,
    found,
    misplaced,
    quantize_both,
)

BACKEND = load_backend("diffusers")


def test_linear_layers_but_wo(pristine: DiffusionPipeline) -> None:
    """Given int8 for both, then all linear layers are int8, but T5's wo, which is eligible, is left by transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # that QuantoConfig is deprecated is no news in each cell
        made = quantize_both(BACKEND, pristine, "int8")
    assert list(found(BACKEND, made["transformer"]).values()) == DENOISER * ["int8"]
    missing = BACKEND.eligible(pristine.text_encoder) - found(BACKEND, made["text_encoder"]).keys()
    assert missing == {f"encoder.block.{place}.layer.1.DenseReluDense.wo" for place in range(ENCODER_BLOCKS)}
    assert len(BACKEND.eligible(pristine.text_encoder)) == ENCODER
    assert found(BACKEND, pristine.transformer) == {}


def test_kernels(pristine: DiffusionPipeline, pristine_bfloat16: DiffusionPipeline) -> None:
    """Given int8, then each layer's output is its dequantized product, rounded (at most 4.2e-4 and 2.7e-3)."""
    for pipeline, dtype in ((pristine, torch.float16), (pristine_bfloat16, torch.bfloat16)):
        made = quantize_both(BACKEND, pipeline, "int8")
        assert {part.dtype for part in made["transformer"].parameters()} == {dtype}
        called = call_both(BACKEND, made, pipeline)
        assert called.moved < 0.1
        assert called.layers == (DENOISER, ENCODER - ENCODER_BLOCKS)
        assert called.error < 1.5 * ROUNDING[dtype]


def test_exclude_by_last_name(pristine: DiffusionPipeline) -> None:
    """Given a pattern that means all layers of one last name, then they are left."""
    made = BACKEND.quantize(pristine, {"transformer": Spec(weights="int8", exclude=("*.to_q", "proj_out"))})
    names = found(BACKEND, made["transformer"])
    assert len(names) == DENOISER - 2 * BLOCKS - 1
    assert not any(name.endswith("to_q") for name in names)


def test_exclude_by_full_name_is_ignored(pristine: DiffusionPipeline) -> None:
    """Given one layer of many with the same last name, then Diffusers quantizes it without a word (as of 0.42.1).

    Naming its last part instead would leave all the others too: what was asked for shall show as not done.
    """
    exclude = ("transformer_blocks.0.attn1.to_q",)
    made = BACKEND.quantize(pristine, {"transformer": Spec(weights="int8", exclude=exclude)})
    assert len(found(BACKEND, made["transformer"])) == DENOISER


def test_exclude_in_transformers_is_of_full_names(pristine: DiffusionPipeline) -> None:
    """Given one layer of a text encoder, then that one is left and no other."""
    exclude = ("encoder.block.1.layer.0.SelfAttention.q",)
    made = BACKEND.quantize(pristine, {"text_encoder": Spec(weights="int8", exclude=exclude)})
    names = found(BACKEND, made["text_encoder"])
    assert (len(names), exclude[0] in names) == (ENCODER - ENCODER_BLOCKS - 1, False)


def test_include_is_not_offered(pristine: DiffusionPipeline) -> None:
    """Given include, then one line says that the library has none."""
    with pytest.raises(
        ConfigError, match="transformer: include: Diffusers has no such argument; name what is to be left"
    ):
        BACKEND.quantize(pristine, {"transformer": Spec(weights="int8", include=("proj_out",))})


def test_files_are_used_where_they_hold_the_component(
    pristine: DiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a pipeline as it was loaded, then nothing is written: a full-size one has 20 GB."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(type(pristine.transformer), "save_pretrained", refuse)
    monkeypatch.setattr(type(pristine.text_encoder), "save_pretrained", refuse)
    assert len(quantize_both(BACKEND, pristine, "int8")) == 2


def test_nothing_of_a_file_stays_in_memory() -> None:
    """Given SD3, whose file holds a buffer beside the weights, then what is left is what the component stores."""
    pipeline = pipelines.load("pocket:sd3", "float16", "cpu")
    BACKEND.prepare(["int8"], "cpu", print)  # what quanto sets up on first use
    made, window = watch(lambda: BACKEND.quantize(pipeline, {"transformer": Spec(weights="int8")}), "cpu")
    assert "pos_embed.pos_embed" in made["transformer"].state_dict()
    assert window.left == stored(made, "cpu")[0]
    assert misplaced(made["transformer"]) == []


def test_a_component_that_was_changed_since(pristine: DiffusionPipeline) -> None:
    """Given weights that are no longer those of the files, then what is quantized is what the component has."""
    changed = copy.deepcopy(pristine)
    original: Any = changed.transformer.proj_out
    original.weight.data.mul_(2.0)
    made: Any = BACKEND.quantize(changed, {"transformer": Spec(weights="int8")})["transformer"]
    assert distance(BACKEND.dequantize(made.proj_out).values, original.weight.detach().float()) < 0.02


def test_transformers_does_not_save_what_its_own_configuration_quantized(
    pristine: DiffusionPipeline, tmp_path: Path
) -> None:
    """Given a T5 that transformers quantized with quanto, then its ``save_pretrained`` refuses: no round trip of it."""
    encoder: Any = BACKEND.quantize(pristine, {"text_encoder": Spec(weights="int8")})["text_encoder"]
    with pytest.raises(ValueError, match="not serializable"):
        encoder.save_pretrained(tmp_path)


def test_a_denoiser_is_the_same_after_saving(pristine: DiffusionPipeline, tmp_path: Path) -> None:
    """Given Diffusers' own files of a quantized transformer, then it returns the same bits after loading."""
    saver = load_saver("diffusers")
    before = BACKEND.quantize(pristine, {"transformer": Spec(weights="int8")})["transformer"]
    saver.save(before, tmp_path / "saved")
    after = saver.load(tmp_path / "saved", before)
    assert found(BACKEND, after) == found(BACKEND, before)
    assert misplaced(after) == []
    assert torch.equal(call_denoiser(after, torch.float16), call_denoiser(before, torch.float16))

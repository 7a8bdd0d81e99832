"""What quanto quantized, saved and loaded again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.errors import ConfigError
from qregress.quantize import load_backend, load_saver
from qregress.quantize.base import Spec
from tests.quantizing import call_denoiser, call_encoder, found, misplaced


@pytest.mark.parametrize("weights", ["int8", "float8", "int4"])
def test_a_denoiser_is_the_same_to_the_bit(weights: str, pristine: DiffusionPipeline, tmp_path: Path) -> None:
    """Given a quantized transformer, when it was saved and loaded, then its bits are the same, at aligned addresses."""
    backend, saver = load_backend("quanto"), load_saver("quanto")
    before = backend.quantize(pristine, {"transformer": Spec(weights=weights)})["transformer"]
    saver.save(before, tmp_path / "saved")
    after = saver.load(tmp_path / "saved", before)
    assert found(backend, after) == found(backend, before)
    assert misplaced(after) == []
    assert torch.equal(call_denoiser(after, torch.float16), call_denoiser(before, torch.float16))


def test_an_encoder_keeps_its_dtypes(pristine: DiffusionPipeline, tmp_path: Path) -> None:
    """Given a T5 of which ``wo`` is left in float32, then it comes back so, the rest in float16, and the same bits."""
    backend, saver = load_backend("quanto"), load_saver("quanto")
    spec = Spec(weights="int8", exclude=("*.wo",))
    before = backend.quantize(pristine, {"text_encoder": spec})["text_encoder"]
    saver.save(before, tmp_path / "saved")
    after = saver.load(tmp_path / "saved", before)
    dtypes = {name: parameter.dtype for name, parameter in before.named_parameters()}
    assert {name: parameter.dtype for name, parameter in after.named_parameters()} == dtypes
    assert torch.equal(call_encoder(after), call_encoder(before))


def test_what_is_of_neither_library(tmp_path: Path) -> None:
    """Given a module of one's own, then it is said that quanto cannot save it."""
    with pytest.raises(TypeError, match="saves models of diffusers and transformers, and Linear is neither"):
        load_saver("quanto").save(nn.Linear(2, 2), tmp_path / "saved")


def test_a_backend_that_cannot_save() -> None:
    """Given torchao, then one line says so."""
    with pytest.raises(ConfigError, match="backend 'torchao' has no way to save what it quantized"):
        load_saver("torchao")

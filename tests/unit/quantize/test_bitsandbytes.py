"""bitsandbytes on a CPU, where it is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.quantize import load_backend
from qregress.quantize.base import Spec
from qregress.quantize.coverage import manifest, plan
from tests.quantizing import (
    BLOCKS,
    DENOISER,
    ENCODER,
    ENCODER_BLOCKS,
    ROUNDING,
    call_both,
    call_encoder,
    distance,
    found,
    packings,
    quantize_all,
    quantize_both,
)

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

BACKEND = load_backend("bitsandbytes")
_ENCODER_QUANTIZED = ENCODER - ENCODER_BLOCKS  # wo


@pytest.mark.parametrize(("weights", "packing"), [("int8", "axis 0"), ("nf4", "block 64"), ("fp4", "block 64")])
def test_all_linear_layers_but_wo(weights: str, packing: str, pristine: DiffusionPipeline) -> None:
    """Given one weight type for both, then linear layers are quantized, but T5's wo, which transformers keeps."""
    assert BACKEND.prepare([weights], "cpu", print) is None
    made = quantize_all(BACKEND, pristine, weights, denoiser=DENOISER, encoder=_ENCODER_QUANTIZED)
    assert packings(BACKEND, made) == {packing}
    assert not any(part.training for part in made.values())


def test_patterns(pristine: DiffusionPipeline) -> None:
    """Given patterns of full names, then those of include are quantized but for those of exclude."""
    spec = Spec(weights="nf4", include=("transformer_blocks.*",), exclude=("*.attn2.*",))
    names = found(BACKEND, BACKEND.quantize(pristine, {"transformer": spec})["transformer"])
    assert len(names) == BLOCKS * (4 + 2)


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_joined_projections_are_as_asked(weights: str, pristine: DiffusionPipeline) -> None:
    """Given fusing, then the manifest finds the joined projections quantized, and takes that for what was asked."""
    spec = Spec(weights=weights, fuse_qkv=True)
    planned = plan(pristine.transformer, BACKEND, spec)
    made = BACKEND.quantize(pristine, {"transformer": spec})["transformer"]
    modules = {module.name: module for module in manifest(made, BACKEND, planned).modules}
    assert modules["transformer_blocks.0.attn1.to_qkv"].found == weights
    assert [module for module in modules.values() if module.found != module.expected] == []


@pytest.mark.parametrize(("weights", "off"), [("nf4", 0.304 / 2), ("fp4", 1 / 6)])
def test_four_bits_are_the_nearest_of_their_code(weights: str, off: float, pristine: DiffusionPipeline) -> None:
    """Given four bits, then a value is off by half the widest gap of its code, times its block's largest, at most.

    nf4's widest is from -1 to -0.696 (https://arxiv.org/abs/2305.14314, appendix E), fp4's from 2/3 to 1.
    """
    made = BACKEND.quantize(pristine, {"transformer": Spec(weights=weights)})["transformer"]
    names = found(BACKEND, made)
    assert len(names) == DENOISER
    for name in names:
        weight = pristine.transformer.get_submodule(name).weight.detach().float()
        values = BACKEND.dequantize(made.get_submodule(name)).values
        largest = weight.reshape(-1, 64).abs().amax(dim=1, keepdim=True)
        assert ((values - weight).reshape(-1, 64).abs() <= largest * (off + 1e-3)).all()


@pytest.mark.parametrize("weights", ["int8", "nf4", "fp4"])
def test_kernels(weights: str, pristine: DiffusionPipeline, pristine_bfloat16: DiffusionPipeline) -> None:
    """Given each type in both dtypes, then each layer's output is its dequantized product, rounded.

    Measured on a CPU: at most 6.3e-4 in float16 and 3.2e-3 in bfloat16, of int8 with outliers, which it adds to a
    product that is rounded already; and twice, before the first call moves int8's scales and after.
    """
    for pipeline, dtype in ((pristine, torch.float16), (pristine_bfloat16, torch.bfloat16)):
        made = quantize_both(BACKEND, pipeline, weights)
        name = "transformer_blocks.0.attn1.to_q"
        before = BACKEND.dequantize(made["transformer"].get_submodule(name)).values
        called = call_both(BACKEND, made, pipeline)
        assert called.moved < 0.5
        assert called.layers == (DENOISER, _ENCODER_QUANTIZED)
        assert called.error < 2 * ROUNDING[dtype]
        assert torch.equal(BACKEND.dequantize(made["transformer"].get_submodule(name)).values, before)
        if weights == "int8":
            assert max(called.denoiser.plain) > 10 * ROUNDING[torch.float16]


def test_outliers_stay() -> None:
    """Given int8 and a column with an 8, then that column is not quantized, and the others as if it were not there."""
    layer = nn.Sequential(nn.Linear(64, 64, dtype=torch.float16))
    pipeline: Any = SimpleNamespace(components={"part": layer})
    module: Any = BACKEND.quantize(pipeline, {"part": Spec(weights="int8")})["part"].get_submodule("0")
    x = torch.linspace(-1, 1, 3 * 64, dtype=torch.float16).reshape(3, 64)
    x[1, 5] = 8.0
    quantized = BACKEND.quantize_input(module, x)
    assert torch.equal(quantized[:, 5], x[:, 5].float())
    assert 0 < (quantized - x.float()).abs().max() <= 0.51 / 127
    with torch.no_grad():
        product = nn.functional.linear(quantized, BACKEND.dequantize(module).values, module.bias.float())
        assert distance(module(x).float(), product) < ROUNDING[torch.float16]


def test_t5_by_the_library_alone(pristine: DiffusionPipeline) -> None:
    """Given a wo in four bits, then T5 makes uint8 of what goes in, as that is the weight's dtype, and is no T5."""
    made: Any = BACKEND.quantize(pristine, {"text_encoder": Spec(weights="nf4")})["text_encoder"]
    reference = call_encoder(pristine.text_encoder)
    assert distance(call_encoder(made), reference) < 0.3
    for place in range(ENCODER_BLOCKS):
        dense = made.encoder.block[place].layer[1].DenseReluDense
        wo = bnb.nn.Linear4bit(256, 128, bias=False, compute_dtype=torch.float16, quant_type="nf4")
        wo.weight = bnb.nn.Params4bit(dense.wo.weight.data, quant_type="nf4", module=wo)
        dense.wo = wo.to("cpu")
    assert distance(call_encoder(made), reference) > 0.5

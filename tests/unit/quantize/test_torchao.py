"""torchao: what it quantizes, that its kernels compute what its weights stand for, and what it cannot do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.errors import ConfigError, ProduceError
from qregress.quantize import load_backend
from qregress.quantize.base import Spec
from tests.quantizing import (
    BLOCKS,
    DENOISER,
    ENCODER,
    ENCODER_BLOCKS,
    ROUNDING,
    Fidelity,
    call_both,
    call_denoiser,
    found,
    packings,
    quantize_all,
    quantize_both,
)
from tests.unit.quantize.test_packed import golden

torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")

from qregress.quantize.torchao import tiles  # noqa: E402 - where it is installed

BACKEND = load_backend("torchao")


@pytest.mark.parametrize("weights", ["int8", "float8"])
def test_all_linear_layers(weights: str, pristine: DiffusionPipeline) -> None:
    """Given one weight type for both, then all linear layers are quantized, T5's wo too, and the originals are not."""
    made = quantize_all(BACKEND, pristine, weights, denoiser=DENOISER, encoder=ENCODER)
    assert packings(BACKEND, made) == {"axis 0"}


def test_patterns(pristine: DiffusionPipeline) -> None:
    """Given patterns of full names, then those of include are quantized but for those of exclude."""
    spec = Spec(weights="int8", include=("transformer_blocks.*", "proj_out"), exclude=("*.attn2.*", "proj_out"))
    names = found(BACKEND, BACKEND.quantize(pristine, {"transformer": spec})["transformer"])
    assert len(names) == BLOCKS * (4 + 2)
    assert not any("attn2" in name or name == "proj_out" for name in names)


def test_a_value_is_off_by_half_a_step(pristine: DiffusionPipeline) -> None:
    """Given int8, then the dequantized weight differs from its own by half a scale at most, and 1 in 255 for its ends.

    float16 rounds the scale itself, which cuts the largest value of a row by up to another half.
    """
    made = BACKEND.quantize(pristine, {"transformer": Spec(weights="int8")})["transformer"]
    names = found(BACKEND, made)
    assert len(names) == DENOISER
    assert {BACKEND.activation_type(made.get_submodule(name)) for name in names} == {None}
    for name in names:
        module: Any = made.get_submodule(name)
        weight = pristine.transformer.get_submodule(name).weight.detach().float()
        values = BACKEND.dequantize(module).values
        assert values.shape == weight.shape
        assert ((values - weight).abs() <= module.weight.scale * 1.01).all()
        assert (values - weight).abs().median() <= module.weight.scale.median() / 2


def test_kernels_in_float16(pristine: DiffusionPipeline) -> None:
    """Given weights alone in float16, then each layer's output is its dequantized product, rounded (at most 4.5e-4)."""
    for weights in ("int8", "float8"):
        called = call_both(BACKEND, quantize_both(BACKEND, pristine, weights), pristine)
        assert called.moved < 0.1
        assert called.layers == (DENOISER, ENCODER)
        assert called.error < 1.5 * ROUNDING[torch.float16]


def test_kernels_in_bfloat16(pristine_bfloat16: DiffusionPipeline) -> None:
    """Given weights alone in bfloat16, then the same (at most 3.8e-3)."""
    for weights in ("int8", "float8"):
        made = BACKEND.quantize(pristine_bfloat16, {"transformer": Spec(weights=weights)})["transformer"]
        fidelity = Fidelity(BACKEND, made)
        call_denoiser(made, torch.bfloat16)
        assert max(fidelity.errors) < 1.5 * ROUNDING[torch.bfloat16]


def test_activations_are_quantized_by_token(pristine: DiffusionPipeline) -> None:
    """Given int8 activations, then a layer multiplies what quantize_input says, which is not what it was given."""
    spec = Spec(weights="int8", activations="int8")
    made = BACKEND.quantize(pristine, {"transformer": spec})["transformer"]
    assert {BACKEND.activation_type(made.get_submodule(name)) for name in found(BACKEND, made)} == {"int8"}
    fidelity = Fidelity(BACKEND, made)
    call_denoiser(made, torch.float16)
    assert max(fidelity.errors) < ROUNDING[torch.float16]  # 3.2e-4
    assert sorted(fidelity.plain)[DENOISER // 2] > 10 * ROUNDING[torch.float16]


def test_int4_is_worked_out_without_its_kernel() -> None:
    """Given tiles with a scale and a zero for each of two groups, then a value is its code less 8, scaled and shifted.

    What pads a weight to whole tiles is left off.
    """
    codes, tile = golden()
    scale = torch.tensor([0.5, 0.25]).reshape(2, 1).expand(2, 8)
    zero = torch.arange(16.0).reshape(2, 8)
    known = tiles(tile, torch.stack((scale, zero), dim=2).bfloat16(), (6, 128))
    assert known.values.shape == (6, 128)
    assert torch.equal(known.values[:, :64], (codes[:6, :64] - 8) * 0.5 + zero[0, :6, None])
    assert torch.equal(known.values[:, 64:], (codes[:6, 64:] - 8) * 0.25 + zero[1, :6, None])


def test_what_a_cpu_cannot_run() -> None:
    """Given a CPU, then what needs CUDA is said in one line, before anything is loaded."""

    def prepare(weights: str, activations: tuple[str, ...] = ()) -> str:
        return BACKEND.prepare([weights], "cpu", print, activations) or ""

    assert prepare("int8", ("int8",)) == prepare("float8") == ""
    assert prepare("int4").startswith("int4 weights need CUDA: torchao ")
    assert prepare("float8", ("float8",)).startswith("float8 activations do not run on cpu: ")


def test_what_no_device_can(pristine: DiffusionPipeline) -> None:
    """Given types that do not go together, and int4 in float16, then one line says so."""
    with pytest.raises(ConfigError, match="transformer: torchao has no int8 weights with float8 activations; name"):
        BACKEND.quantize(pristine, {"transformer": Spec(weights="int8", activations="float8")})
    with pytest.raises(ProduceError, match="bfloat16 alone, not in float16, float32; set dtype"):
        BACKEND.quantize(pristine, {"text_encoder": Spec(weights="int4")})


def test_int8_overflows_in_float16() -> None:
    """Given the bare library, float16 and products of 92, then int8 makes them infinite: scales come after rounding."""
    layer = nn.Linear(512, 1, bias=False, dtype=torch.float16)
    nn.init.constant_(layer.weight, 0.045)
    x = torch.full((1, 512), 4.0, dtype=torch.float16)  # 512 * 4 * 127 is more than 65504
    assert layer(x).item() == pytest.approx(92.16, rel=0.01)
    for how in (torchao.Int8WeightOnlyConfig(version=2), torchao.Int8DynamicActivationInt8WeightConfig(version=2)):
        one = nn.Sequential(copy.deepcopy(layer))
        torchao.quantize_(one, how)
        assert one(x).isinf().all()


def test_float8_of_zeros_is_nan() -> None:
    """Given the bare library and a row of zeros, as final projections begin, then its output in float8 is NaN."""
    layer = nn.Linear(128, 2, dtype=torch.bfloat16)
    nn.init.zeros_(layer.weight[0])
    torchao.quantize_(nn.Sequential(layer), torchao.Float8WeightOnlyConfig())
    assert layer(torch.ones(1, 128, dtype=torch.bfloat16)).isnan().tolist() == [[True, False]]


def test_wo_has_float32(pristine: DiffusionPipeline) -> None:
    """Given float16, then T5's wo, which transformers keeps in float32, is quantized and computes in float32."""
    made = BACKEND.quantize(pristine, {"text_encoder": Spec(weights="int8")})["text_encoder"]
    kept: list[Any] = [module for name, module in made.named_modules() if name.endswith(".wo")]
    assert (len(kept), {module.weight.dtype for module in kept}) == (ENCODER_BLOCKS, {torch.float32})

"""The manifest, on a model small enough to count by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from msgspec import UNSET
from torch import nn

from qregress.judge.proof import coverage as judged
from qregress.quantize import load_backend
from qregress.quantize.base import Spec
from qregress.quantize.coverage import inner_tensors, kept_alive, manifest, plan, storages, tensor_bytes
from qregress.quantize.quanto import apply, declare
from qregress.record import Coverage
from tests.making import make_record

INT8 = Spec(weights="int8")


class Block(nn.Module):
    """A linear layer, a convolution, a norm, an embedding and a block inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 128)
        self.conv = nn.Conv2d(128, 8, 1)
        self.proj_in = nn.Linear(128, 64)
        self.norm = nn.LayerNorm(64)
        self.inner = nn.ModuleDict({"to_q": nn.Linear(64, 64), "act": nn.SiLU()})
        self.proj_out = nn.Linear(64, 4)


def found(coverage: Coverage) -> dict[str, tuple[str | None, str | None]]:
    """Module -> expected and found weight type."""
    return {module.name: (module.expected, module.found) for module in coverage.modules}


def covered(spec: Spec) -> Coverage:
    """The manifest of a block that was quantized as asked."""
    backend, block = load_backend("quanto"), Block()
    planned = plan(block, backend, spec)
    apply(block, spec)
    return manifest(block, backend, planned)


def test_linear_and_convolution_are_quantized_and_the_rest_is_not() -> None:
    """Given int8 with an exclusion, then exactly the others with a kernel are int8."""
    assert found(covered(Spec(weights="int8", exclude=("proj_out",)))) == {
        "embed": (None, None),
        "conv": ("int8", "int8"),
        "proj_in": ("int8", "int8"),
        "norm": (None, None),
        "inner.to_q": ("int8", "int8"),
        "proj_out": (None, None),
    }


def test_only_what_is_included_and_not_excluded() -> None:
    """Given both kinds of patterns, then what is excluded of the included stays as it is."""
    coverage = covered(Spec(weights="int8", include=("proj_*", "inner.*"), exclude=("proj_out",)))
    quantized = [name for name, (_, kind) in found(coverage).items() if kind is not None]
    assert quantized == ["proj_in", "inner.to_q"]
    assert found(coverage)["conv"] == (None, None)


def test_bytes_are_counted_inside_tensor_subclasses() -> None:
    """Given int8 of 64 x 128 in float16, then 8192 bytes of data and 64 scales of 2 bytes."""
    block = Block().half()
    apply(block, INT8)
    assert tensor_bytes(block.proj_in.weight.data) == 64 * 128 + 64 * 2
    assert [tensor.dtype for tensor in inner_tensors(block.proj_in.weight.data)] == [torch.int8, torch.float16]


@pytest.mark.parametrize(
    ("weights", "inputs", "packing"), [("int8", 256, "axis 0"), ("int4", 256, "group 128"), ("int2", 64, "axis 0")]
)
def test_how_scales_lie(weights: str, inputs: int, packing: str) -> None:
    """Given a weight type, then the manifest says whether a scale is an output's or a group's."""
    backend, model = load_backend("quanto"), nn.Sequential(nn.Linear(inputs, 64))
    planned = plan(model, backend, Spec(weights=weights))
    apply(model, Spec(weights=weights))
    (module,) = manifest(model, backend, planned).modules
    assert module.packing == packing


def test_storage_that_is_shared_counts_once() -> None:
    """Given tied weights, then their bytes are there once."""
    first, second = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
    second.weight = first.weight
    assert sum(storages(nn.ModuleList([first, second])).values()) == 16 * 16 * 4


def test_storage_on_another_device_does_not_count() -> None:
    """Given weights on the host, then nothing of them is on CUDA."""
    assert storages(nn.Linear(16, 16), "cuda") == {}


def test_not_frozen_is_not_quantized() -> None:
    """Given a model that was quantized but not frozen, then its weights are still plain tensors, and it shows."""
    backend, block = load_backend("quanto"), Block()
    planned = plan(block, backend, INT8)
    declare(block, INT8)
    assert found(manifest(block, backend, planned))["proj_in"] == ("int8", None)


def test_a_module_that_is_gone_and_one_that_came() -> None:
    """Given a fused projection in place of another, then the old one is missing and the new one should be quantized."""
    spec = Spec(weights="int8", exclude=("proj_out",))
    backend, block = load_backend("quanto"), Block()
    planned = plan(block, backend, spec)
    apply(block, spec)
    del block.proj_in
    block.fused = nn.Linear(128, 192)
    coverage = manifest(block, backend, planned)
    dtypes = {module.name: module.dtype for module in coverage.modules}
    assert (found(coverage)["proj_in"], dtypes["proj_in"]) == (("int8", None), "missing")
    assert found(coverage)["fused"] == ("int8", None)


def test_projections_that_are_fused_after_quantizing(pristine: DiffusionPipeline) -> None:
    """Given Diffusers' own fusing of a quantized denoiser, then all that it made is told to be unquantized."""
    backend = load_backend("quanto")
    planned = plan(pristine.transformer, backend, INT8)
    denoiser = copy.deepcopy(pristine.transformer)
    apply(denoiser, INT8)
    denoiser.fuse_qkv_projections()
    wrong = [name for name, (asked, kind) in found(manifest(denoiser, backend, planned)).items() if asked != kind]
    # 8 blocks, each with query, key and value of self-attention in one layer, key and value of cross-attention.
    assert len(wrong) == 8 * 2
    assert wrong[0] == "transformer_blocks.0.attn1.to_qkv"


def test_projections_that_are_fused_before(pristine: DiffusionPipeline) -> None:
    """Given fusing as a setting asks for it, then the new layers are quantized, and so are the old ones that stay."""
    backend, spec = load_backend("quanto"), Spec(weights="int8", fuse_qkv=True)
    planned = plan(pristine.transformer, backend, spec)
    denoiser = backend.quantize(pristine, {"transformer": spec})["transformer"]
    coverage = found(manifest(denoiser, backend, planned))
    assert coverage["transformer_blocks.0.attn1.to_qkv"] == ("int8", "int8")
    assert coverage["transformer_blocks.0.attn1.to_q"] == ("int8", "int8")
    assert not hasattr(pristine.transformer.transformer_blocks[0].attn1, "to_qkv")


def test_what_projections_are_joined_of(pristine: DiffusionPipeline) -> None:
    """Given fusing, then the plan knows the new projections and their parts, and shares the weights of the rest."""
    planned = plan(pristine.transformer, load_backend("quanto"), Spec(weights="int8", fuse_qkv=True)).joined
    assert planned is not None
    assert len(planned) == 8 * 2
    first = "transformer_blocks.0.attn"
    assert planned[f"{first}1.to_qkv"] == (f"{first}1.to_q", f"{first}1.to_k", f"{first}1.to_v")
    assert planned[f"{first}2.to_kv"] == (f"{first}2.to_k", f"{first}2.to_v")
    assert plan(pristine.transformer, load_backend("quanto"), INT8).joined is None
    assert not hasattr(pristine.transformer.transformer_blocks[0].attn1, "to_qkv")


def test_fusing_that_does_nothing(pristine: DiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a model whose fusing does nothing, then what was asked for is no pass, though all is quantized."""
    monkeypatch.setattr(type(pristine.transformer), "fuse_qkv_projections", lambda _: None)
    backend, spec = load_backend("quanto"), Spec(weights="int8", fuse_qkv=True)
    planned = plan(pristine.transformer, backend, spec)
    made = backend.quantize(pristine, {"transformer": spec})["transformer"]
    told = judged(make_record(coverage={"transformer": manifest(made, backend, planned)}))
    assert told is not None
    assert (told.verdict, told.why) == (
        "fail",
        "transformer: fuse_qkv was asked for, but no projections were joined",
    )


def test_patterns_of_projections_that_are_joined(pristine: DiffusionPipeline) -> None:
    """Given an exclusion of what only fusing makes, then it matches, and what it names is to be left as it is."""
    spec = Spec(weights="int8", fuse_qkv=True, exclude=("*.to_qkv",))
    backend = load_backend("quanto")
    planned = plan(pristine.transformer, backend, spec)
    assert planned.unmatched == ()
    made = backend.quantize(pristine, {"transformer": spec})["transformer"]
    coverage = found(manifest(made, backend, planned))
    assert coverage["transformer_blocks.0.attn1.to_qkv"] == (None, None)
    assert all(expected == kind for expected, kind in coverage.values())


def _inputs(spec: Spec, asked: Spec, *, calibrated: bool) -> dict[str, Any]:
    """Module -> types of inputs, of a block quantized as ``spec`` says where ``asked`` was asked for."""
    backend = load_backend("quanto")
    block = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)).half()
    planned = plan(block, backend, asked)
    apply(block, spec)
    if calibrated:
        with torch.no_grad(), backend.calibration():
            block(torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).half())
    return {module.name: module.activations for module in manifest(block, backend, planned).modules}


def test_inputs_that_are_quantized() -> None:
    """Given activations that were asked for, then the manifest tells those found: none, or none with a scale, too."""
    asked = Spec(weights="int8", activations="int8")
    assert _inputs(asked, asked, calibrated=True) == {"0": ("int8", "int8"), "1": UNSET}
    assert _inputs(asked, asked, calibrated=False) == {"0": ("int8", "int8 without a scale"), "1": UNSET}
    assert _inputs(INT8, asked, calibrated=True) == {"0": ("int8", None), "1": UNSET}
    assert _inputs(asked, INT8, calibrated=True) == {"0": (None, "int8"), "1": UNSET}
    assert _inputs(INT8, INT8, calibrated=True) == {"0": UNSET, "1": UNSET}


@pytest.mark.parametrize(
    ("pattern", "unmatched"),
    [
        ("proj_*", ()),
        ("proj_uot", ("proj_uot",)),
        ("*.proj_out", ("*.proj_out",)),
        ("norm", ()),
        ("inner", ("inner",)),
        ("inner.*", ()),
    ],
)
def test_patterns_that_mean_nothing(pattern: str, unmatched: tuple[str, ...]) -> None:
    """Given a pattern that no module has as its name, or only one that holds others, then it is told as unmatched."""
    assert plan(Block(), load_backend("quanto"), Spec(weights="int8", exclude=(pattern,))).unmatched == unmatched
    assert plan(Block(), load_backend("quanto"), Spec(weights="int8", include=(pattern,))).unmatched == unmatched


@pytest.mark.parametrize("weights", ["float8", "float8_e4m3fnuz", "float8_e5m2", "int8", "int4", "int2"])
def test_weight_types_by_name(weights: str) -> None:
    """Given a weight type of a configuration, then the module says the same name."""
    backend, block = load_backend("quanto"), Block().half()
    apply(block, Spec(weights=weights))
    assert backend.weight_type(block.proj_in) == weights
    assert backend.weight_type(block.norm) is None


def _kept(keep: Any) -> Coverage:
    """The manifest of a block whose original weights are kept by something."""
    backend, original = load_backend("quanto"), Block()
    planned = plan(original, backend, INT8)
    block = copy.deepcopy(original)
    holder = keep(block)
    apply(block, INT8)
    coverage = manifest(block, backend, planned)
    kept = kept_alive({"model": (original, block)}, {"model": coverage})["model"]
    del holder
    return kept


def test_original_weights_that_are_gone() -> None:
    """Given a library that lets them go, then none is found, though the unquantized model is there for reference."""
    coverage = _kept(id)
    assert (coverage.kept, coverage.kept_bytes) == ((), 0)


def test_zeros_are_nobodys_weights() -> None:
    """Given a head of zeros, as it is initialized with, and other zeros of its shape, then nothing is said of it."""
    backend, original = load_backend("quanto"), Block()
    nn.init.zeros_(original.proj_out.weight)
    planned = plan(original, backend, INT8)
    block = copy.deepcopy(original)
    apply(block, INT8)
    zeros = torch.zeros(4, 64)
    kept = kept_alive({"model": (original, block)}, {"model": manifest(block, backend, planned)})["model"]
    assert zeros.shape == original.proj_out.weight.shape
    assert (kept.kept, kept.kept_bytes) == ((), 0)


@pytest.mark.parametrize(
    "keep",
    [
        lambda block: block.proj_in.weight,
        lambda block: {"cache": [block.proj_in.weight.detach()]},
        lambda block: block.proj_in.weight.data.clone(),
    ],
    ids=["parameter", "detached", "copy"],
)
def test_original_weights_that_something_keeps(keep: Any) -> None:
    """Given one that is held anywhere in the process, then its module and bytes are told."""
    coverage = _kept(keep)
    assert (coverage.kept, coverage.kept_bytes) == (("proj_in",), 64 * 128 * 4)

"""The manifest, on a model small enough to count by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qregress.quantize import load_backend
from qregress.quantize.coverage import inner_tensors, manifest, plan, storages, tensor_bytes
from qregress.record import Coverage


class Block(nn.Module):
    """A linear layer, a convolution, a norm and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 128)
        self.conv = nn.Conv2d(128, 8, 1)
        self.proj_in = nn.Linear(128, 64)
        self.norm = nn.LayerNorm(64)
        self.proj_out = nn.Linear(64, 4)


def found(coverage: Coverage) -> dict[str, tuple[str | None, str | None]]:
    """Module -> expected and found weight type."""
    return {module.name: (module.expected, module.found) for module in coverage.modules}


def test_linear_and_convolution_are_quantized_and_the_rest_is_not() -> None:
    """Given int8 with an exclusion, then exactly the others with a kernel are int8."""
    backend, block = load_backend("quanto"), Block()
    planned = plan(block, backend, "int8", ("proj_out",))
    backend.quantize(block, "int8", ("proj_out",))
    assert found(manifest(block, backend, planned)) == {
        "embed": (None, None),
        "conv": ("int8", "int8"),
        "proj_in": ("int8", "int8"),
        "norm": (None, None),
        "proj_out": (None, None),
    }


def test_bytes_are_counted_inside_tensor_subclasses() -> None:
    """Given int8 of 64 x 128 in float16, then 8192 bytes of data and 64 scales of 2 bytes."""
    backend, block = load_backend("quanto"), Block().half()
    backend.quantize(block, "int8", ())
    assert tensor_bytes(block.proj_in.weight.data) == 64 * 128 + 64 * 2
    assert [tensor.dtype for tensor in inner_tensors(block.proj_in.weight.data)] == [torch.int8, torch.float16]


def test_storage_that_is_shared_counts_once() -> None:
    """Given tied weights, then their bytes are there once."""
    first, second = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
    second.weight = first.weight
    assert sum(storages(nn.ModuleList([first, second])).values()) == 16 * 16 * 4


def test_not_frozen_is_not_quantized() -> None:
    """Given a model that was quantized but not frozen, then its weights are still plain tensors, and it shows."""
    from optimum.quanto import qint8, quantize  # type: ignore[import-untyped, unused-ignore]

    backend, block = load_backend("quanto"), Block()
    planned = plan(block, backend, "int8", ())
    quantize(block, weights=qint8)
    assert found(manifest(block, backend, planned))["proj_in"] == ("int8", None)


def test_a_module_that_is_gone_and_one_that_came() -> None:
    """Given a fused projection in place of another, then the old one is missing and the new one should be quantized."""
    backend, block = load_backend("quanto"), Block()
    planned = plan(block, backend, "int8", ("proj_out",))
    backend.quantize(block, "int8", ("proj_out",))
    del block.proj_in
    block.fused = nn.Linear(128, 192)
    coverage = manifest(block, backend, planned)
    dtypes = {module.name: module.dtype for module in coverage.modules}
    assert (found(coverage)["proj_in"], dtypes["proj_in"]) == (("int8", None), "missing")
    assert found(coverage)["fused"] == ("int8", None)


@pytest.mark.parametrize(
    ("pattern", "unmatched"), [("proj_*", ()), ("proj_uot", ("proj_uot",)), ("*.proj_out", ("*.proj_out",))]
)
def test_patterns_that_mean_nothing(pattern: str, unmatched: tuple[str, ...]) -> None:
    """Given a pattern, then it is kept as unmatched where no module has such a name."""
    assert plan(Block(), load_backend("quanto"), "int8", (pattern,)).unmatched == unmatched


@pytest.mark.parametrize(("weights", "dtype"), [("int8", torch.float16), ("float8", torch.float16)])
def test_weight_types_by_name(weights: str, dtype: torch.dtype) -> None:
    """Given a weight type of a configuration, then the tensor says the same name."""
    backend, block = load_backend("quanto"), Block().to(dtype)
    backend.quantize(block, weights, ())
    assert backend.weight_type(block.proj_in.weight.data) == weights
    assert backend.weight_type(block.norm.weight.data) is None

"""Marlin's cuts, against a replay of what each of its blocks does and a kernel that is emulated from that."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from qregress.quantize import fidelity, load_backend, marlin
from qregress.quantize.base import Spec
from qregress.quantize.fidelity import Pending
from qregress.quantize.quanto import apply
from qregress.record import LayerFidelity

BLOCKS, SHARED = 132, 232448  # of an H100 and an H200
HALF = (torch.float16, torch.bfloat16)

#: Of tokens from one place to another and one column of outputs: from which input on each of its parts goes.
Parts = dict[tuple[int, int, int], list[int]]


def replay(outputs: int, inputs: int, tokens: int) -> tuple[Parts, int]:
    """Block by block, tile by tile, as the kernel walks; and how many outputs a column has."""
    found = marlin.tile(outputs, inputs, tokens, SHARED)
    assert found is not None
    wide, high, run = found
    rows, columns = inputs // wide, outputs // high
    parts: Parts = defaultdict(list)
    start = 0
    while start < tokens:
        left = tokens - start
        par = 1 if left <= run else min(left // run, 16)
        length = left if left <= run else par * run
        each = -(-rows * columns * par // BLOCKS)
        for block in range(BLOCKS):
            at = block * each
            while at < min((block + 1) * each, rows * columns * par):
                side, column = divmod(at // rows, columns)
                first = start + side * run
                parts[first, min(first + run, start + length), column].append(at % rows * wide)
                at = min((at // rows + 1) * rows, (block + 1) * each)  # to the end of the column, or of the block
        start += length
    return parts, high


@pytest.mark.parametrize("tokens", [1, 16, 17, 64, 65, 300, 1200, 8192])
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(4096, 4096), (10240, 4096), (4096, 10240), (1152, 1152), (4608, 1152), (1152, 4608)]
)
def test_cuts_are_where_blocks_begin(outputs: int, inputs: int, tokens: int) -> None:
    """Given a layer's shape and tokens, then sums are cut where a block begins within its column, and nowhere else."""
    parts, high = replay(outputs, inputs, tokens)
    found = marlin.cuts(outputs, inputs, BLOCKS, SHARED, tokens, torch.arange(tokens))
    places = found.places if found is not None else ()
    here = found.here if found is not None else torch.zeros(0, tokens, outputs // high, dtype=torch.bool)
    expected = torch.zeros_like(here)
    for (first, last, column), begins in parts.items():
        assert min(begins) == 0
        for begin in set(begins) - {0}:
            expected[places.index(begin), first:last, column] = True
    assert torch.equal(here, expected)


def test_of_some_tokens() -> None:
    """Given some tokens of a call, then they have the cuts that they have among all of them."""
    shape, some = (4096, 10240, BLOCKS, SHARED, 1200), torch.tensor([0, 5, 63, 64, 700, 1151, 1152, 1199])
    whole, part = marlin.cuts(*shape, torch.arange(1200)), marlin.cuts(*shape, some)
    assert whole is not None
    assert part is not None
    assert (part.places, part.width) == (whole.places, whole.width)
    assert torch.equal(part.here, whole.here[:, some])


def test_the_rest_of_the_tokens_is_cut_more_often() -> None:
    """Given the 300 tokens of a T5, then sums of those that are left over are made by more blocks."""
    found = marlin.cuts(4096, 4096, BLOCKS, SHARED, 300, torch.arange(300))
    assert found is not None
    most = found.here.sum(0).amax(1)
    assert {*most[:256].tolist()} == {1}
    assert {*most[256:].tolist()} == {7}


@pytest.mark.parametrize(
    ("shape", "shared", "expected"),
    [
        ((4096, 4096, 300), SHARED, (64, 256, 64)),
        ((1152, 1152, 300), SHARED, (64, 128, 64)),
        ((4096, 4096, 16), SHARED, (128, 128, 64)),
        ((192, 128, 300), SHARED, (128, 64, 64)),
        ((4096, 4096, 300), 101376, (64, 128, 64)),
        ((4096, 4096, 300), 49152, (64, 128, 16)),
        ((100, 4096, 300), SHARED, None),
    ],
)
def test_the_tile_that_fits(shape: tuple[int, int, int], shared: int, expected: tuple[int, int, int] | None) -> None:
    """Given a shape and a device's shared memory, then the first tile that divides the one and fits the other."""
    assert marlin.tile(*shape, shared) == expected


def compared(weight: torch.Tensor, x: torch.Tensor, cut: bool, fault: float = 1.0) -> LayerFidelity:
    """An emulated Marlin kernel's layer, of which cuts are known or not; ``fault``: a factor on the last tokens."""
    outputs, inputs = weight.shape
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=False)).to(x.dtype)
    original: Any = model[0].weight
    original.data.copy_(weight)
    apply(model, Spec(weights="float8"))
    linear: Any = model[0]
    values = linear.weight.dequantize().float()

    def kernel(x: torch.Tensor) -> torch.Tensor:
        parts, high = replay(outputs, inputs, len(x))
        made = torch.zeros(len(x), outputs)
        for (first, last, column), begins in parts.items():
            here, end = slice(column * high, (column + 1) * high), inputs
            for begin in sorted(begins, reverse=True):
                made[first:last, here] += x[first:last, begin:end].float() @ values[here, begin:end].T
                made[first:last, here] = made[first:last, here].to(x.dtype).float()
                end = begin
        made[-32:] *= fault
        return made.to(x.dtype)

    linear.forward = kernel
    backend: Any = load_backend("quanto")
    known = backend.dequantize(linear)
    cuts = partial(marlin.cuts, outputs, inputs, BLOCKS, SHARED) if cut else None
    backend.dequantize = lambda _: msgspec.structs.replace(known, cuts=cuts)

    def run(_: Pending) -> None:
        with torch.no_grad():
            model(x)

    (only,) = fidelity.examine({"model": model}, {"model": nn.Module()}, backend, run)["model"].layers
    return only


def drawn(*shape: int) -> torch.Tensor:
    """Seeded."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


@pytest.mark.parametrize("kind", ["alike", "early outlier", "late outlier", "blocks that cancel"])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_sound_kernel_passes(dtype: torch.dtype, kind: str) -> None:
    """Given inputs of which some are large, or run against each other, then its cuts account for what it loses."""
    x, weight = drawn(44, 4096), drawn(1024, 4096) / 64
    if kind == "early outlier":
        x[:, 37] *= 300
    if kind == "late outlier":
        x[:, 4060] *= 300
    if kind == "blocks that cancel":
        x[:, 960:1024] += 10
        x[:, 1024:1088] -= 10
        weight[:, 960:1088] = weight[:, 960:1088].abs()
    found = compared(weight, x.to(dtype), cut=True)
    assert found.where == ""
    assert found.excess is not None
    assert 0.4 < found.excess <= 1


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_kernel_of_which_no_cuts_are_known_fails(dtype: torch.dtype) -> None:
    """Given sums that are handed on where a kernel should not, then that is beyond what sums in float32 may lose."""
    x, weight = drawn(44, 4096), drawn(1024, 4096) / 64
    assert compared(weight, x.to(dtype), cut=False).where


def test_a_small_fault_is_not_hidden() -> None:
    """Given 1 % on the last tokens, which are cut most, then it is told."""
    found = compared(drawn(1152, 4608) / 68, drawn(2080, 4608).to(torch.bfloat16), cut=True, fault=1.01)
    assert found.where == "in a token"


def test_tokens_that_are_left_out() -> None:
    """Given a token that is not finite among those that are cut, then the others keep their own cuts."""
    x = drawn(300, 4096).half()
    x[257] = torch.nan
    found = compared(drawn(1024, 4096) / 64, x, cut=True)
    assert (found.left_out, found.where) == (1, "")

"""What was quantized, saved and loaded again, in its pipeline: what is told of it, and what is judged of that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from optimum.quanto import QTensor
from torch import nn

from qregress import pipelines
from qregress.judge.proof import roundtrip as judged
from qregress.matrix import Setting
from qregress.metrics.latents import relative_l2
from qregress.produce import roundtrip as tested
from qregress.produce.generate import Generated
from qregress.produce.variant import assemble, manifests, plans, quantized
from qregress.quantize import load_saver
from qregress.record import Check
from tests.making import make_record

#: Of a component as it was loaded, what is given in its place.
Change = Callable[[Any], nn.Module]


@pytest.fixture(scope="module")
def pristine() -> DiffusionPipeline:
    """The pocket PixArt-Sigma."""
    return pipelines.load("pocket:pixart-sigma", "float16", "cpu")


def generated(latents: float = 1.0) -> Generated:
    """One image, and latents of one value."""
    return Generated(
        images=torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        finite=torch.ones(1, dtype=torch.bool),
        latents=torch.full((1, 4, 2, 2), latents),
        trajectory=torch.zeros(1, 1, 4, 2, 2),
    )


def checked(
    pristine: DiffusionPipeline,
    folder: Path,
    run: Callable[[DiffusionPipeline], Generated] = lambda _: generated(),
    **setting: Any,
) -> Check:
    """The verdict on int8 under quanto, where ``run`` takes the place of calls of the pipeline."""
    asked = Setting(name="saved", weights={"transformer": "int8"}, roundtrip=True, **setting)
    planned = plans(pristine, asked)
    pipeline = assemble(pristine, quantized(pristine, asked))
    trip = tested.roundtrip(pipeline, asked, planned, generated(), run, folder)
    manifest = manifests(pipeline, pristine, asked, planned)
    found = judged(make_record(coverage=manifest, roundtrip=trip))
    assert found is not None
    return found


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Change what quanto's files give."""

    def arrange(change: Change) -> None:
        saver: Any = load_saver("quanto")
        load = saver.load
        saver.load = lambda place, like: change(load(place, like))
        monkeypatch.setattr(tested, "load_saver", lambda _: saver)

    return arrange


def test_the_same(pristine: DiffusionPipeline, tmp_path: Path) -> None:
    """Given what quanto saves and loads today, then it is the same in each module and bit."""
    found = checked(pristine, tmp_path)
    assert (found.verdict, found.why) == ("pass", "the same bits after saving and loading")


def test_joined_projections_are_lost(pristine: DiffusionPipeline, tmp_path: Path) -> None:
    """Given joined projections, which a new model of quanto's has not and is not missed in, then that is told."""
    found = checked(pristine, tmp_path, fuse_qkv=True)
    assert found.verdict == "fail"
    assert "loaded otherwise than saved: transformer: int8, WeightQBytesTensor, axis 0, float16 -> " in found.why
    assert "transformer_blocks.0.attn1.to_qkv" in found.why


def test_unquantized_weights(pristine: DiffusionPipeline, tmp_path: Path, loading: Callable[[Change], None]) -> None:
    """Given weights that come back unquantized, which moves latents as rounding does, then that is told."""

    def dequantized(loaded: Any) -> nn.Module:
        plain: nn.Module = copy.deepcopy(pristine.transformer)
        for name, parameter in loaded.named_parameters():
            quantized = isinstance(parameter, QTensor)
            plain.get_parameter(name).data = parameter.dequantize() if quantized else parameter.data
        return plain

    loading(dequantized)
    found = checked(pristine, tmp_path)
    assert found.verdict == "fail"
    assert found.why.startswith(
        "loaded otherwise than saved: transformer: int8, WeightQBytesTensor, axis 0, float16 -> unquantized, "
    )


def test_another_bit(pristine: DiffusionPipeline, tmp_path: Path, loading: Callable[[Change], None]) -> None:
    """Given one value of one bias that is not the saved one, then its name is told, whatever images say."""

    def damaged(loaded: Any) -> nn.Module:
        loaded.proj_out.bias.data[0] += 0.01
        return loaded  # type: ignore[no-any-return]

    loading(damaged)
    found = checked(pristine, tmp_path)
    assert found.verdict == "fail"
    assert found.why == "1 parameters and buffers are not the saved bits: transformer.proj_out.bias"


@pytest.mark.parametrize(
    ("moved", "legal", "verdict"),
    [(1.05, 1.01, "pass"), (1.07, 1.01, "fail"), (1.0004, 1.0, "pass"), (1.001, 1.0, "fail")],
)
def test_other_images_of_the_same_weights(
    moved: float, legal: float, verdict: str, pristine: DiffusionPipeline, tmp_path: Path
) -> None:
    """Given other latents, then six times what another attention kernel does to them is allowed, or one rounding."""
    calls: list[bool] = []

    def run(_: DiffusionPipeline) -> Generated:
        calls.append(torch.backends.cuda.flash_sdp_enabled())
        return generated(moved if calls[-1] else legal)

    found = checked(pristine, tmp_path, run)
    assert calls == [True, False]
    assert found.value == pytest.approx(relative_l2(generated(moved).latents, generated().latents))
    assert found.verdict == verdict

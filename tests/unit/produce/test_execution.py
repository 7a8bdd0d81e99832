"""Compiled and offloaded pipelines, and activations that are calibrated."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import DiffusionPipeline

from qregress.matrix import Offload, Setting, Workload
from qregress.pipelines import load
from qregress.produce.calibration import calibrate
from qregress.produce.execution import copied, is_placed, own_components, place
from qregress.produce.variant import assemble


@pytest.fixture(scope="module")
def pristine() -> DiffusionPipeline:
    """The pocket PixArt-Sigma."""
    return load("pocket:pixart-sigma", "float16", "cpu")


@pytest.mark.parametrize("offload", ["model", "sequential", "group"])
def test_offload_needs_cuda(offload: Offload) -> None:
    """Given a CPU, then there is nothing to move weights to, and one line says so; on CUDA there is."""
    setting = Setting(name="s", weights={"transformer": "int8"}, offload=offload)
    assert setting.unable("cpu") is not None
    assert setting.unable("cuda:0") is None
    assert is_placed(setting)


def test_nothing_to_place() -> None:
    """Given a plain setting, then it runs anywhere as it is."""
    setting = Setting(name="s", weights={"transformer": "int8"})
    assert (setting.unable("cpu"), is_placed(setting)) == (None, False)


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, set()),
        ({"offload": "model"}, {"text_encoder", "vae"}),
        ({"compile": True}, set()),
        ({"compile": True, "weights": {"text_encoder": "int8"}}, {"transformer"}),
    ],
)
def test_what_is_changed_is_copied(fields: dict[str, Any], own: set[str], pristine: DiffusionPipeline) -> None:
    """Given components that are not quantized, then those which are moved or compiled all the same are copies."""
    setting = Setting(**{"name": "s", "weights": {"transformer": "int8"}, **fields})
    assert set(own_components(pristine, setting)) == own
    made = copied(pristine, setting)
    assert {name: module is getattr(pristine, name) for name, module in made.items()} == dict.fromkeys(own, False)


def test_compiling_leaves_the_pristine_pipeline(pristine: DiffusionPipeline) -> None:
    """Given a compiled copy, then the reference's denoiser is not compiled, and a line on the screen says what is."""
    setting = Setting(name="s", weights={"text_encoder": "int8"}, compile=True)
    said: list[str] = []
    pipeline = assemble(pristine, copied(pristine, setting))
    place(pipeline, setting, "cpu", said.append)
    assert pipeline.transformer._compiled_call_impl is not None
    assert pristine.transformer._compiled_call_impl is None
    assert said == ["compiling transformer with torch.compile, outside of every timing"]


@pytest.mark.parametrize(
    ("backend", "activations", "prompts", "runs"),
    [("quanto", {"transformer": "int8"}, 3, 2), ("quanto", {"transformer": "int8"}, 1, 1), ("quanto", {}, 3, 0)],
)
def test_calibration(backend: str, activations: dict[str, str], prompts: int, runs: int) -> None:
    """Given quantized activations, then the workload's first prompts are run one at a time; else none is."""
    setting = Setting(
        name="s", weights={"transformer": "int8"}, activations=activations, calibration=2, backend=backend
    )
    seen: list[range] = []
    assert calibrate(setting, Workload(name="w", prompts=("a prompt",) * prompts), seen.append) == runs
    assert seen == [range(index, index + 1) for index in range(runs)]


def test_dynamic_activations_are_not_calibrated() -> None:
    """Given torchao, which takes scales from each call, then nothing is run."""
    weights = {"transformer": "int8"}
    setting = Setting(name="s", weights=weights, activations=weights, backend="torchao")
    seen: list[range] = []
    assert calibrate(setting, Workload(name="w", prompts=("a prompt",)), seen.append) == 0
    assert seen == []

"""Quantization-aware training, a few steps of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from optimum.quanto import QTensor
from torch import nn

from qregress import pipelines
from qregress.errors import ProduceError
from qregress.matrix import Training, Workload
from qregress.pipelines.assemble import family_of
from qregress.produce.nested import nested, tensors, to
from qregress.produce.student import Student
from qregress.produce.training import train
from qregress.quantize import quanto
from qregress.quantize.base import Spec
from qregress.record import Trained

SOURCE = pipelines.check("pocket:pixart-sigma")
WORKLOAD = Workload(name="w", prompts=pipelines.builtin_prompts()[:8], steps=2)
INT2 = Spec(weights="int2")


@pytest.fixture(scope="module")
def pristine() -> DiffusionPipeline:
    """The pocket pipeline in float32, which is fast on a CPU."""
    return pipelines.load(SOURCE, "float32", "cpu")


def run(pipeline: DiffusionPipeline, spec: Spec = INT2, steps: int = 2, **fields: Any) -> tuple[nn.Module, Trained]:
    """A short training."""
    training = Training(steps=steps, **{"prompts": 1, **fields})
    module, done = train(pipeline, SOURCE, WORKLOAD, "transformer", spec, training, lambda _done, _total: None)
    quanto.apply(module, spec)
    return module, done


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters, quantized ones as what they stand for."""
    found = {name: parameter.data for name, parameter in module.named_parameters()}
    return {name: data.dequantize() if isinstance(data, QTensor) else data.clone() for name, data in found.items()}


def test_the_student_comes_closer(pristine: DiffusionPipeline) -> None:
    """Given int2 weights, then after some steps the predictions' error is a fraction of what it was."""
    done = run(pristine, steps=20)[1]
    assert (done.last_loss or 1.0) < 0.7 * (done.first_loss or 0.0)
    assert (done.steps, done.prompts, done.seed, done.rate) == (20, 1, 0, 3e-4)
    assert done.seconds > 0


def test_the_same_seed_gives_the_same_weights(pristine: DiffusionPipeline) -> None:
    """Given one seed twice and another, then weights are equal to the bit, and not."""
    torch.manual_seed(1)
    first = values(run(pristine, prompts=5, seed=3)[0])
    torch.manual_seed(2)
    again, other = (values(run(pristine, prompts=5, seed=seed)[0]) for seed in (3, 4))
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert not all(torch.equal(other[name], value) for name, value in first.items())


def test_nothing_else_changes(pristine: DiffusionPipeline) -> None:
    """Given a training, then pipeline, random state and gradient mode are as before."""
    denoiser = pristine.transformer
    before, scheduler, state = values(denoiser), dict(vars(pristine.scheduler)), torch.get_rng_state()
    with torch.inference_mode(mode=False), torch.enable_grad():
        run(pristine)
        assert torch.is_grad_enabled()
    with torch.no_grad():
        run(pristine, steps=1)
        assert not torch.is_grad_enabled()
    after = values(pristine.transformer)
    assert pristine.transformer is denoiser
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert not denoiser._forward_hooks
    assert not denoiser._forward_pre_hooks
    assert vars(pristine.scheduler).keys() == scheduler.keys()
    assert torch.equal(torch.get_rng_state(), state)


def test_what_comes_back_is_quantized_as_asked(pristine: DiffusionPipeline) -> None:
    """Given a type and a module that is left out, then the others are frozen with that type, in evaluation mode."""
    module, _ = run(pristine, Spec(weights="int2", exclude=("proj_out",)), steps=1)
    backend = quanto.backend()
    parts = dict(module.named_modules())
    types = {name: backend.weight_type(parts[name]) for name in backend.eligible(pristine.transformer)}
    assert {name for name, kind in types.items() if kind is None} == {"proj_out"}
    assert set(types.values()) == {"int2", None}
    assert not module.training


@pytest.mark.parametrize("weights", ["int8", "float8"])
def test_types_without_a_shift(pristine: DiffusionPipeline, weights: str) -> None:
    """Given a type with a scale alone, then it is trained too."""
    module, done = run(pristine, Spec(weights=weights), steps=1)
    assert quanto.backend().weight_type(module.get_submodule("proj_out")) == weights
    assert done.rate == 1e-5
    assert done.last_loss is not None
    assert done.last_loss < 0.05


@pytest.mark.parametrize("weights", ["int4", "int2"])
def test_rounding_does_not_change_levels(pristine: DiffusionPipeline, weights: str) -> None:
    """Given latent weights anywhere between two levels, then the bfloat16 module has the levels trained with."""
    spec = Spec(weights=weights)
    with torch.no_grad():
        student = Student(pristine.transformer, spec)
        module = student.copy_into(pipelines.load(SOURCE, "bfloat16", "cpu").transformer)
    backend = quanto.backend()
    layers = backend.eligible(module)
    quanto.apply(module, spec)
    trained = dict(student.module.named_parameters())
    assert {name for name, part in module.named_modules() if backend.weight_type(part) is not None} == layers != set()
    for name in layers:
        part: Any = module.get_submodule(name)
        weight = trained[f"{name}.weight"]
        assert (part.weight.dequantize().float() - weight).abs().max() < 0.02 * weight.abs().max()


def test_a_component_that_is_not_called(pristine: DiffusionPipeline) -> None:
    """Given a component that makes no latents, then there is nothing to learn from."""
    with pytest.raises(ProduceError, match=r"PixArtSigmaPipeline does not call its vae"):
        train(pristine, SOURCE, WORKLOAD, "vae", INT2, Training(steps=1, prompts=1), lambda _done, _total: None)


@pytest.mark.parametrize("name", ["aura-flow", "hunyuan-dit", "latte", "lumina", "sd3"])
def test_other_families(name: str) -> None:
    """Given denoisers that are called in other ways, then they learn, and each step is told."""
    source = pipelines.check(f"pocket:{name}")
    pipeline = pipelines.load(source, "float32", "cpu")
    component = family_of(pipeline).denoiser
    told: list[tuple[int, int]] = []
    workload = Workload(name="w", prompts=("a prompt",), steps=2)
    training = Training(steps=2, prompts=1)
    module, done = train(pipeline, source, workload, component, INT2, training, lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]
    assert done.first_loss is not None
    assert done.first_loss > 0
    quanto.apply(module, INT2)
    assert any(quanto.backend().weight_type(part) == "int2" for part in module.modules())


def test_tensors_however_deep() -> None:
    """Given tensors in lists, tuples and mappings, then only floating-point ones change, and all keep their places."""
    value = (torch.ones(1), {"a": [torch.ones(1, dtype=torch.int64), None]}, 2.0)
    changed = nested(partial(to, dtype=torch.bfloat16), value)
    assert (changed[0].dtype, changed[1]["a"][0].dtype) == (torch.bfloat16, torch.int64)
    assert changed[1]["a"][1:] == [None]
    assert changed[2] == 2.0
    assert [tensor.dtype for tensor in tensors(changed)] == [torch.bfloat16]

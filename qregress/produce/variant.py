"""A setting applied: some components of an unquantized pipeline replaced by quantized copies."""

from __future__ import annotations

import copy

import msgspec
from diffusers import DiffusionPipeline
from torch import nn

from qregress.errors import ProduceError, nearest
from qregress.matrix import Setting
from qregress.quantize import load_backend
from qregress.quantize.coverage import Plan, manifest, plan
from qregress.record import Coverage


def modules(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """The components that have weights."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def plans(pristine: DiffusionPipeline, setting: Setting) -> dict[str, Plan]:
    """What the setting asks of each component; of one that it does not name, that nothing changes.

    A pattern has a meaning if any of the named components has such a module. Raises ``ProduceError`` where the pipeline
    has no such component, as a registered factory need not say which it has.
    """
    backend = load_backend(setting.backend)
    parts = modules(pristine)
    for component in setting.weights:
        if component not in parts:
            asked = f"setting '{setting.name}' quantizes '{component}'"
            raise ProduceError(f"{asked}, which the pipeline does not have; {nearest(component, parts)}")
    found = {}
    for name, module in parts.items():
        weights = setting.weights.get(name)
        found[name] = plan(module, backend, weights, setting.exclude if weights is not None else ())
    named = list(setting.weights)
    nowhere = set(setting.exclude).intersection(*(found[name].unmatched for name in named))
    for place, name in enumerate(named):
        told = tuple(sorted(nowhere)) if place == 0 else ()
        found[name] = msgspec.structs.replace(found[name], unmatched=told)
    return found


def quantized(pristine: DiffusionPipeline, setting: Setting) -> dict[str, nn.Module]:
    """Quantized copies of the components that the setting names.

    The copies own their memory, aligned, unlike weights that were memory-mapped from a file: int8 products on a CPU
    end the process where a weight's address is no multiple of 16.
    """
    backend = load_backend(setting.backend)
    copies = {name: copy.deepcopy(modules(pristine)[name]) for name in setting.weights}
    for name, module in copies.items():
        backend.quantize(module, setting.weights[name], setting.exclude)
    return copies


def assemble(pristine: DiffusionPipeline, changed: dict[str, nn.Module]) -> DiffusionPipeline:
    """A pipeline with a scheduler of its own, whose state outlives a call, and otherwise the pristine components.

    A copy in which components stand in for themselves or for their originals, wherever the pipeline keeps them: calling
    its class again would lose what was set on it since, and a class of one's own may take other arguments.
    """
    parts = {name: part for name, part in pristine.components.items() if part is not None and name != "scheduler"}
    pipeline = copy.deepcopy(pristine, {id(part): changed.get(name, part) for name, part in parts.items()})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def manifests(pipeline: DiffusionPipeline, setting: Setting, planned: dict[str, Plan]) -> dict[str, Coverage]:
    """What became of each component, those that were to stay as they are included."""
    backend = load_backend(setting.backend)
    return {name: manifest(module, backend, planned[name]) for name, module in modules(pipeline).items()}

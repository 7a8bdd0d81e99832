"""A setting applied: some components of an unquantized pipeline replaced by quantized copies."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import msgspec
from diffusers import DiffusionPipeline
from torch import nn

from qregress.errors import ProduceError, nearest
from qregress.matrix import DENOISER, Setting
from qregress.pipelines.assemble import family_of
from qregress.quantize import load_backend
from qregress.quantize.base import Spec
from qregress.quantize.coverage import Plan, kept_alive, manifest, plan
from qregress.record import Coverage


def modules(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """The components that have weights."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def specs(pristine: DiffusionPipeline, setting: Setting) -> dict[str, Spec]:
    """What the setting asks of each component that it names.

    Raises ``ProduceError`` where the pipeline has no such component, as a registered factory need not say which it has,
    cannot join its projections, or is to have a denoiser joined or trained that the setting leaves as it is.
    """
    parts = modules(pristine)
    for component in setting.weights:
        if component not in parts:
            asked = f"setting '{setting.name}' quantizes '{component}'"
            raise ProduceError(f"{asked}, which the pipeline does not have; {nearest(component, parts)}")
    for key, wanted in (("fuse_qkv", setting.fuse_qkv), ("qat", setting.qat is not None)):
        if wanted and setting.weights.keys().isdisjoint(denoisers(pristine)):
            left = f"its weights leave {' and '.join(denoisers(pristine))} as it is"
            raise ProduceError(f"setting '{setting.name}' has {key}, and {left}; name the denoiser in weights")
    fused = denoisers(pristine) if setting.fuse_qkv else ()
    for component in fused:
        if not hasattr(parts[component], "fuse_qkv_projections"):
            kind = type(parts[component]).__name__
            raise ProduceError(f"setting '{setting.name}' has fuse_qkv, and {kind} has no fuse_qkv_projections")
    return {
        name: Spec(
            weights=weights,
            activations=setting.activations.get(name),
            include=setting.include,
            exclude=setting.exclude,
            fuse_qkv=name in fused,
        )
        for name, weights in setting.weights.items()
    }


def denoisers(pipeline: DiffusionPipeline) -> tuple[str, ...]:
    """The components that denoise."""
    return family_of(pipeline).members(DENOISER)


def plans(pristine: DiffusionPipeline, setting: Setting) -> dict[str, Plan]:
    """What the setting asks of each component; of one that it does not name, that nothing changes.

    A pattern has a meaning if any of the named components has such a module. Raises what ``specs`` raises.
    """
    backend = load_backend(setting.backend)
    asked = specs(pristine, setting)
    found = {name: plan(module, backend, asked.get(name, Spec())) for name, module in modules(pristine).items()}
    named = list(setting.weights)
    nowhere = {*setting.include, *setting.exclude}.intersection(*(found[name].unmatched for name in named))
    for place, name in enumerate(named):
        told = tuple(sorted(nowhere)) if place == 0 else ()
        found[name] = msgspec.structs.replace(found[name], unmatched=told)
    return found


def quantized(pristine: DiffusionPipeline, setting: Setting) -> dict[str, nn.Module]:
    """Quantized modules for the components that the setting names."""
    return load_backend(setting.backend).quantize(pristine, specs(pristine, setting))


def assemble(pristine: DiffusionPipeline, changed: dict[str, nn.Module]) -> DiffusionPipeline:
    """A pipeline with a scheduler of its own, whose state outlives a call, and otherwise the pristine components.

    A copy in which components stand in for themselves or for their originals, wherever the pipeline keeps them: calling
    its class again would lose what was set on it since, and a class of one's own may take other arguments.
    """
    parts = {name: part for name, part in pristine.components.items() if part is not None and name != "scheduler"}
    pipeline = copy.deepcopy(pristine, {id(part): changed.get(name, part) for name, part in parts.items()})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def manifests(
    pipeline: DiffusionPipeline,
    pristine: DiffusionPipeline,
    setting: Setting,
    planned: dict[str, Plan],
    others: Iterable[DiffusionPipeline] = (),
) -> dict[str, Coverage]:
    """What became of each component, those that were to stay as they are included.

    ``others``: more unquantized pipelines that are in memory.
    """
    backend, originals, parts = load_backend(setting.backend), modules(pristine), modules(pipeline)
    found = {name: manifest(module, backend, planned[name]) for name, module in parts.items()}
    pairs = {name: (originals[name], parts[name]) for name in setting.weights}
    return kept_alive(pairs, found, [part for other in others for part in modules(other).values()])

"""Proof that a setting happened: what became of every module, and whether its kernel multiplies rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import msgspec
from diffusers import DiffusionPipeline

from qregress.matrix import Setting
from qregress.produce.generate import OnStep, call_until
from qregress.produce.variant import manifests, modules
from qregress.quantize import load_backend
from qregress.quantize.coverage import Plan
from qregress.quantize.fidelity import Pending, examine
from qregress.record import Coverage, LayerFidelity


class Proof(msgspec.Struct, frozen=True):
    """By component."""

    coverage: dict[str, Coverage]
    fidelity: dict[str, tuple[LayerFidelity, ...]]


def prove(
    pipeline: DiffusionPipeline,
    pristine: DiffusionPipeline,
    setting: Setting,
    planned: dict[str, Plan],
    others: Iterable[DiffusionPipeline],
    run: Callable[[OnStep], object],
    comparing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Proof:
    """Draw up manifests, and compare layers over a call.

    It ends at the first step at which every layer has been called, which is mostly the first one: what is left then
    belongs to a denoiser of later steps, or to what decodes latents. Of projections that were joined the old ones are
    not waited for. ``others``: more unquantized pipelines that are in memory. ``run`` calls the pipeline and takes what
    is to be called after every step; ``comparing`` is entered for what comes between its layers.
    """
    backend, parts, originals = load_backend(setting.backend), modules(pipeline), modules(pristine)
    unused = {
        (component, name) for component, plan in planned.items() for old in (plan.joined or {}).values() for name in old
    }

    def call(pending: Pending) -> None:
        call_until(pipeline, run, lambda _: pending() <= unused)

    named = list(setting.weights)
    before = {name: originals[name] for name in named}
    found = examine({name: parts[name] for name in named}, before, backend, call, comparing)
    coverage = manifests(pipeline, pristine, setting, planned, others)
    for name, examined in found.items():
        coverage[name] = msgspec.structs.replace(coverage[name], idle=examined.idle)
    return Proof(coverage, {name: examined.layers for name, examined in found.items()})

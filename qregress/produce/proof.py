"""Proof that a setting happened: what became of every module, and whether its kernel multiplies rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from diffusers import DiffusionPipeline

from qregress.matrix import Setting
from qregress.produce.variant import manifests, modules
from qregress.quantize import load_backend
from qregress.quantize.coverage import Plan
from qregress.quantize.fidelity import examine
from qregress.record import Coverage, LayerFidelity


class Proof(msgspec.Struct, frozen=True):
    """By component."""

    coverage: dict[str, Coverage]
    fidelity: dict[str, tuple[LayerFidelity, ...]]


class _Enough(Exception):
    """One step has been taken: every layer has been called."""


def prove(
    pipeline: DiffusionPipeline,
    pristine: DiffusionPipeline,
    setting: Setting,
    planned: dict[str, Plan],
    others: Iterable[DiffusionPipeline],
    run: Callable[[Callable[[int], None]], object],
) -> Proof:
    """Draw up manifests, and compare layers over the encoders and one denoiser step of a call.

    ``others``: more unquantized pipelines that are in memory. ``run`` calls the pipeline and takes what is to be called
    after every step.
    """
    backend, parts, originals = load_backend(setting.backend), modules(pipeline), modules(pristine)

    def call() -> None:
        try:
            run(_stop)
        except _Enough:
            return

    named = list(setting.weights)
    found = examine({name: parts[name] for name in named}, {name: originals[name] for name in named}, backend, call)
    coverage = manifests(pipeline, pristine, setting, planned, others)
    for name, examined in found.items():
        coverage[name] = msgspec.structs.replace(coverage[name], idle=examined.idle)
    return Proof(coverage, {name: examined.layers for name, examined in found.items()})


def _stop(_: int) -> None:
    raise _Enough

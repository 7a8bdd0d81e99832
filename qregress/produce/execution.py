"""How a pipeline is run, apart from what its weights are: compiled, or moved to the device piece by piece."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.matrix import Setting
from qregress.produce.variant import denoisers, modules


def is_placed(setting: Setting) -> bool:
    """Whether ``place`` does anything."""
    return setting.compile or setting.offload != "none"


def own_components(pristine: DiffusionPipeline, setting: Setting) -> tuple[str, ...]:
    """Unquantized components that the setting changes all the same, so that the pipeline needs copies of them."""
    if setting.offload != "none":
        return tuple(name for name in modules(pristine) if name not in setting.weights)
    if setting.compile:
        return tuple(name for name in denoisers(pristine) if name not in setting.weights)
    return ()


def copied(pristine: DiffusionPipeline, setting: Setting) -> dict[str, nn.Module]:
    """Those copies."""
    parts = modules(pristine)
    return {name: copy.deepcopy(parts[name]) for name in own_components(pristine, setting)}


def place(pipeline: DiffusionPipeline, setting: Setting, device: str, say: Callable[[str], None]) -> None:
    """Compile or offload a pipeline in place, with Diffusers' own methods."""
    if setting.compile:
        say(f"compiling {', '.join(denoisers(pipeline))} with torch.compile, outside of every timing")
        for name in denoisers(pipeline):
            getattr(pipeline, name).compile()
    if setting.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif setting.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    elif setting.offload == "group":
        pipeline.enable_group_offload(torch.device(device), torch.device("cpu"), offload_type="leaf_level")

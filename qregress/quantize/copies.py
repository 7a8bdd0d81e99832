"""Copies of components, for libraries that quantize a model in place."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from qregress.quantize.base import Spec

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def copies(pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
    """Copies of some components of a pipeline, their projections joined where that is asked for.

    Joining leaves the old projections where they are, beside the new one that is used. Copies own their memory,
    aligned, unlike weights that were memory-mapped from a file: int8 products on a CPU end the process where a weight's
    address is no multiple of 16.
    """
    made = {name: copy.deepcopy(pristine.components[name]) for name in specs}
    for name, module in made.items():
        if specs[name].fuse_qkv:
            module.fuse_qkv_projections()
    return made


def joined(component: nn.Module) -> nn.Module:
    """A copy whose projections are joined and which otherwise shares the weights of the component: to be looked at."""
    shared = {id(tensor): tensor for tensor in (*component.parameters(), *component.buffers())}
    made: Any = copy.deepcopy(component, shared)
    made.fuse_qkv_projections()
    return made  # type: ignore[no-any-return]

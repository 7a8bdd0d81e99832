"""Copies of components, for libraries that quantize a model in place, and memory of its own for a loaded one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
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


def owned(component: nn.Module) -> nn.Module:
    """The same module with memory of its own, aligned as in ``copies``, for all that may be a part of a file's block.

    A buffer is replaced, not given other data: a view keeps the whole block alive through the tensor that it is of.
    Parameters and buffers that modules share stay shared.
    """
    for parameter in component.parameters():
        if _is_plain(parameter):
            parameter.data = parameter.data.clone()
        else:
            _own_parts(parameter)
    replaced: dict[int, torch.Tensor] = {}
    for module in component.modules():
        for name, buffer in [*module.named_buffers(recurse=False, remove_duplicate=False)]:
            setattr(module, name, replaced.setdefault(id(buffer), buffer.clone()))
    return component


def _is_plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, nn.Parameter) or not hasattr(tensor, "__tensor_flatten__")


def _own_parts(tensor: Any) -> None:
    """Of a tensor subclass, what it is made of."""
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        part = getattr(tensor, name)
        if _is_plain(part):
            setattr(tensor, name, part.clone())
        else:
            _own_parts(part)

"""Save what was quantized, load it again, and generate once more: weights and images must be the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.errors import LIBRARY_ERRORS, typed_line
from qregress.matrix import Setting
from qregress.metrics.latents import relative_l2
from qregress.produce.generate import Generated
from qregress.produce.noise import other_attention
from qregress.produce.variant import assemble, modules
from qregress.quantize import load_backend, load_saver
from qregress.quantize.coverage import Plan, inner_tensors, manifest
from qregress.record import Roundtrip


def roundtrip(
    pipeline: DiffusionPipeline,
    setting: Setting,
    planned: dict[str, Plan],
    made: Generated,
    run: Callable[[DiffusionPipeline], Generated],
    folder: Path,
) -> Roundtrip:
    """Through a temporary folder inside ``folder``.

    ``planned``: what the setting asks of each component. ``made``: images of some prompts before; ``run`` generates the
    same again with another pipeline. That a library cannot save or load what it quantized is a result like any other.
    """
    backend, saver, parts = load_backend(setting.backend), load_saver(setting.backend), modules(pipeline)
    nbytes: dict[str, int] = {}
    loaded: dict[str, nn.Module] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix="roundtrip-") as name:
        for component in setting.weights:
            place = Path(name) / component
            try:
                saver.save(parts[component], place)
                nbytes[component] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
                loaded[component] = saver.load(place, parts[component])
            except LIBRARY_ERRORS as error:
                why = f"{component} ({type(parts[component]).__name__}) cannot be saved and loaded: {typed_line(error)}"
                return Roundtrip(disk_bytes=0, components={}, equal=False, latents=(), dtype=setting.dtype, message=why)
    again = run(assemble(pipeline, loaded))
    legal: tuple[float | None, ...] = ()
    if not again.equals(made):
        with other_attention():
            legal = _moved(run(pipeline), made)
    return Roundtrip(
        disk_bytes=sum(nbytes.values()),
        components=nbytes,
        equal=again.equals(made),
        latents=_moved(again, made),
        dtype=setting.dtype,
        legal=legal,
        loaded={name: manifest(module, backend, planned[name]) for name, module in loaded.items()},
        altered=tuple(f"{name}.{key}" for name, module in loaded.items() for key in altered(parts[name], module)),
    )


def altered(saved: nn.Module, loaded: nn.Module) -> list[str]:
    """Names of parameters and buffers that only one of both has, or whose bits or dtypes are not the same."""
    before, after = _tensors(saved), _tensors(loaded)
    both = before.keys() & after.keys()
    return [name for name in before | after if name not in both or not _same(before[name], after[name])]


def _tensors(module: nn.Module) -> dict[str, list[torch.Tensor]]:
    """What each parameter and buffer is made of."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: list(inner_tensors(tensor)) for name, tensor in tensors}


def _same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """Bit by bit: NaN equals NaN, and what has the same values in another dtype is not the same."""
    return len(before) == len(after) and all(
        one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bits(one), _bits(other))
        for one, other in zip(before, after, strict=True)
    )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _moved(again: Generated, made: Generated) -> tuple[float | None, ...]:
    """Relative L2 of the final latents of each prompt."""
    return tuple(relative_l2(a, b) for a, b in zip(again.latents, made.latents, strict=True))

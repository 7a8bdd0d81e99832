"""An architecture to a ``DiffusionPipeline`` with random weights, made where they are to lie."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import accelerate
import diffusers
import torch
import transformers
from torch import nn

from qregress.errors import SourceError, nearest, one_line
from qregress.pipelines.architecture import Architecture, Part
from qregress.pipelines.pocket import zoo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

#: How many values are drawn at once: float32 of 64 MiB, whatever the size of a weight.
_CHUNK = 2**24
#: Standard deviation of biases, and of norms' weights around one.
_SMALL = 0.02


def build(architecture: Architecture, dtype: torch.dtype, vae_dtype: torch.dtype, device: str) -> DiffusionPipeline:
    """A pipeline with seeded random weights, in evaluation mode, on a device; ``"meta"`` gives shapes alone.

    Each weight is drawn in float32 from a seed of its own and rounded, so a weight has the same values in all dtypes,
    up to rounding, but other values on CUDA than on a CPU. ``dtype``: of all but the VAE. What ``from_pretrained``
    leaves in float32 is in float32. Raises ``SourceError`` for a class or an entry of a configuration that the
    libraries do not have.
    """
    vae = architecture.family.vae
    parts: dict[str, Any] = {}
    for name, part in architecture.parts.items():
        where = f"{architecture.origin}: components.{name}"
        if part.has_weights:
            kind = vae_dtype if name == vae else dtype
            model = skeleton(where, part, kind)
            fill(model, kind, part.gain, f"{architecture.seed}/{name}", device)
            parts[name] = model.eval()
        else:
            parts[name] = _without_weights(where, part)
    made_by = _class(architecture.origin, f"diffusers.{architecture.class_name}")
    try:
        pipeline: DiffusionPipeline = made_by(**parts, **dict.fromkeys(architecture.without), **architecture.arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{architecture.origin}: {architecture.class_name}: {one_line(error)}") from error
    return pipeline


def skeleton(where: str, part: Part, dtype: torch.dtype) -> nn.Module:
    """The model as ``from_pretrained`` lays it out before it reads weights: these are on ``meta``, tables are real."""
    kind = _class(where, part.kind)
    model: Any
    with accelerate.init_empty_weights(include_buffers=False), _default(dtype):
        if part.library == "diffusers":
            _check_entries(where, part, inspect.signature(kind.__init__).parameters)
            model = kind.from_config(part.config)
        else:
            _check_entries(where, part, kind.config_class().to_dict())
            model = kind(kind.config_class(**part.config, dtype=dtype))
    if part.library == "transformers":
        model.tie_weights()  # each use of a shared weight has been put on meta for itself
    found: nn.Module = model
    return found


def fill(model: nn.Module, dtype: torch.dtype, gain: float, seed: str, device: str) -> None:
    """Replace weights on ``meta`` by random ones on a device, and move tables there.

    Scaled so that float16 holds what the model computes: matrices by the square root of what they sum over, and by
    ``gain``. Weights that are one stay one.
    """
    stored = model.state_dict().keys()
    made: dict[int, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full = f"{prefix}.{name}".lstrip(".")
            if id(parameter) not in made:
                kind = torch.float32 if _stays_float32(model, full, dtype) else dtype
                mean, deviation = _scale(name, parameter, gain)
                drawn = _normal(parameter.shape, mean, deviation, f"{seed}/{full}", kind, device)
                made[id(parameter)] = nn.Parameter(drawn, requires_grad=False)
            setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            # A table that files hold is loaded in the model's dtype; others keep the one that they were made in.
            loaded = f"{prefix}.{name}".lstrip(".") in stored and buffer.is_floating_point()
            setattr(module, name, buffer.to(device, dtype if loaded else None))


def _scale(name: str, parameter: torch.Tensor, gain: float) -> tuple[float, float]:
    """Mean and standard deviation of a weight."""
    if parameter.ndim > 1:
        summed = math.prod(parameter.shape[1:]) if name == "weight" else parameter.shape[-1]
        return 0.0, gain / math.sqrt(summed)
    if name in {"weight", "bias"}:
        return float(name == "weight"), _SMALL
    return 0.0, 1.0  # a token, or gates, as of Lumina


def _normal(
    shape: torch.Size, mean: float, deviation: float, seed: str, dtype: torch.dtype, device: str
) -> torch.Tensor:
    made = torch.empty(shape, dtype=dtype, device=device)
    if made.is_meta:
        return made
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator(device).manual_seed(number)
    for piece in made.view(-1).split(_CHUNK):
        drawn = torch.randn(piece.numel(), generator=generator, device=device, dtype=torch.float32)
        piece.copy_(drawn.mul_(deviation).add_(mean))
    return made


def _stays_float32(model: nn.Module, name: str, dtype: torch.dtype) -> bool:
    """Whether the library loads a weight in float32 all the same, as transformers does with T5's ``wo``."""
    always = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    in_float16 = getattr(model, "_keep_in_fp32_modules", None) or ()
    kept = {*always, *(in_float16 if dtype == torch.float16 else ())}
    return not kept.isdisjoint(name.split("."))


def _without_weights(where: str, part: Part) -> Any:
    """A scheduler, or a tokenizer out of the zoo."""
    kind = _class(where, part.kind)
    if part.files is not None:
        return kind.from_pretrained(str(zoo() / part.files), local_files_only=True, **part.config)
    _check_entries(where, part, inspect.signature(kind.__init__).parameters)
    return kind.from_config(part.config)


def _class(where: str, kind: str) -> Any:
    library, _, name = kind.partition(".")
    found = getattr({"diffusers": diffusers, "transformers": transformers}[library], name, None)
    if found is None:
        version = {"diffusers": diffusers, "transformers": transformers}[library].__version__
        raise SourceError(f"{where}: {library} {version} has no class {name}")
    return found


def _check_entries(where: str, part: Part, known: Any) -> None:
    """Libraries ignore an entry that they do not know, and take the default: of another size, and full size at that."""
    for entry in part.config:
        if entry not in known:
            raise SourceError(f"{where}.config: {part.class_name} has no '{entry}'; {nearest(entry, known)}")


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of a dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

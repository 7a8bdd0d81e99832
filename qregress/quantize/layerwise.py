"""Diffusers' layerwise casting: weights are stored as float8 without scales and cast for each call of their layer.

Models of Diffusers are cast by their own ``enable_layerwise_casting``, with all its defaults. For models of
transformers there is ``apply_layerwise_casting``, which knows nothing of them. Two things that it does by default end a
pipeline's call in an error, and are not asked for:

- T5 casts the inputs of ``wo`` to the dtype of that layer's weight before calling it. What transformers itself keeps in
  float32 is left, as ``enable_layerwise_casting`` leaves it in models of Diffusers.
- Pipelines compute in the dtype of a text encoder's first parameter, which is an embedding's. Embeddings are left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin
from diffusers.hooks import apply_layerwise_casting
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from torch import nn

from qregress.errors import one_line
from qregress.quantize.base import Backend, Dequantized, Spec
from qregress.quantize.copies import copies

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

STORAGE = {"float8": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
_NAMES = {dtype: name for name, dtype in STORAGE.items()}

#: What the library casts. It keeps the tuple to itself.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CAST = (nn.Linear, *_CONVOLUTIONS, nn.Embedding)


class Layerwise(Backend):
    """See ``base.Backend``."""

    def prepare(
        self, weights: Iterable[str], device: str, say: Callable[[str], None], activations: Iterable[str] = ()
    ) -> str | None:
        """Cast a little there and back: a device has the dtype or it does not."""
        _ = say, activations
        for kind in sorted(set(weights)):
            try:
                torch.ones(16, device=device).to(STORAGE[kind]).to(torch.float16)
            except (RuntimeError, TypeError) as error:
                return f"{kind} weights cannot be stored on {device}: {one_line(error)}"
        return None

    def eligible(self, component: nn.Module) -> frozenset[str]:
        """Linear layers, convolutions and, in models of Diffusers, embeddings; but those that the library leaves.

        It leaves what has a name with ``norm``, ``patch_embed`` or ``pos_embed`` in it, the outermost ``proj_in`` and
        ``proj_out``, and what a model's class lists: ``_keep_in_fp32_modules``, ``_skip_layerwise_casting_patterns``.
        """
        left = (*DEFAULT_SKIP_MODULES_PATTERN, *_of_class(component))
        kinds = tuple(kind for kind in _CAST if kind not in _classes(component))
        return frozenset(
            name
            for name, part in component.named_modules()
            if isinstance(part, kinds) and not any(re.search(pattern, name) for pattern in left)
        )

    def quantize(self, pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
        """Copies with the library's hooks on them. They compute in the dtype that they had."""
        made = copies(pristine, specs)
        for name, component in made.items():
            apply(component, specs[name])
        return made

    def weight_type(self, module: nn.Module) -> str | None:
        """By the dtype of the weight, which is the stored one before and after each call."""
        weight = getattr(module, "weight", None)
        return _NAMES.get(weight.dtype) if isinstance(weight, torch.Tensor) else None

    def packing(self, module: nn.Module) -> str:
        """No scales."""
        _ = module
        return ""

    def dequantize(self, module: nn.Module) -> Dequantized:
        """The stored values: float16 and bfloat16 hold each of them, so a kernel rounds none."""
        if self.weight_type(module) is None:
            raise TypeError(f"{type(module).__name__}: its weight is not stored as float8")
        weight: Any = module.weight
        values = weight.detach().float()
        return Dequantized(values, torch.zeros_like(values))


def apply(component: nn.Module, spec: Spec) -> None:
    """Set up layerwise casting in place. The dtype of computing is that of the component."""
    storage, compute = STORAGE[spec.weights or ""], _dtype(component)
    # One pattern of full names, of layers alone: what the library skips, it skips with all that is inside.
    names = [name for name, part in component.named_modules() if isinstance(part, _CAST) and not spec.means(name)]
    left = (f"^(?:{'|'.join(map(re.escape, names))})$",) if names else ()
    if isinstance(component, ModelMixin):
        # Without patterns of one's own the library also leaves adapters' layers.
        patterns = (*DEFAULT_SKIP_MODULES_PATTERN, *left) if left else None
        component.enable_layerwise_casting(storage, compute, skip_modules_pattern=patterns)
    else:
        patterns = (*DEFAULT_SKIP_MODULES_PATTERN, *_of_class(component), *left)
        apply_layerwise_casting(component, storage, compute, patterns, _classes(component))


def _of_class(component: nn.Module) -> tuple[str, ...]:
    """What the component's class asks to be left, as patterns for ``re.search``; transformers' are whole names."""
    kept = getattr(component, "_keep_in_fp32_modules", None) or ()
    if isinstance(component, ModelMixin):
        return (*kept, *(component._skip_layerwise_casting_patterns or ()))  # noqa: SLF001 - what the library reads
    return tuple(rf"(^|\.){re.escape(name)}(\.|$)" for name in sorted(kept))


def _classes(component: nn.Module) -> tuple[type[nn.Module], ...]:
    return () if isinstance(component, ModelMixin) else (nn.Embedding,)


def _dtype(component: nn.Module) -> torch.dtype:
    dtype = getattr(component, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else next(component.parameters()).dtype


def backend() -> Layerwise:
    """The backend that the registry loads."""
    return Layerwise()

"""torchao, through ``quantize_`` and its configurations; activations are quantized anew in every call.

Two things that 0.18.0 does, both the library's own and for the checks of a run to find:

- In float16, int8 weights overflow where ``sum(|x|) * 127`` passes 65504, whatever their scales: the kernel rounds the
  product with the bare integers to the inputs' dtype, and multiplies by the scales afterwards.
- A row of zeros, as heads are initialized with, becomes NaN in float8: its scale is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Float8Tensor,
    Float8WeightOnlyConfig,
    Int4TilePackedTo4dTensor,
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8Tensor,
    Int8WeightOnlyConfig,
    PerTensor,
    quantize_,
)

from qregress.errors import ConfigError, ProduceError, one_line
from qregress.quantize.base import Backend, Dequantized, Spec, alike
from qregress.quantize.copies import copies
from qregress.quantize.packed import unpack_tiles

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

#: Weight and activation type -> what makes the configuration: version 2, whose tensors 0.18 makes without being told,
#: and otherwise the defaults. None sets options of torch.compile for the whole process, which in releases before 0.18
#: changed all float32 products.
_PINNED = {"version": 2, "set_inductor_config": False}
CONFIGS: dict[tuple[str | None, str | None], Callable[[], Any]] = {
    ("int8", None): partial(Int8WeightOnlyConfig, **_PINNED),
    ("float8", None): partial(Float8WeightOnlyConfig, **_PINNED),
    # The only packing of int4 that needs no further package: for torch's own kernel, on CUDA.
    ("int4", None): partial(Int4WeightOnlyConfig, int4_packing_format="tile_packed_to_4d", **_PINNED),
    ("int8", "int8"): partial(Int8DynamicActivationInt8WeightConfig, **_PINNED),
    ("float8", "float8"): partial(Float8DynamicActivationFloat8WeightConfig, **_PINNED),
}

_INT8_STEPS = 127.5  # symmetric: half of -128 to 127
_TENSORS = {Int8Tensor: "int8", Float8Tensor: "float8", Int4TilePackedTo4dTensor: "int4"}


class TorchAO(Backend):
    """See ``base.Backend``."""

    def prepare(
        self, weights: Iterable[str], device: str, say: Callable[[str], None], activations: Iterable[str] = ()
    ) -> str | None:
        """Quantize and call a small layer with each type: that compiles nothing, and says what a device cannot run."""
        _ = say
        wanted: list[tuple[str, str | None]] = [(kind, None) for kind in sorted(set(weights))]
        for pair in [*wanted, *((kind, kind) for kind in sorted(set(activations)))]:
            missing = _try(pair, device)
            if missing is not None:
                return missing
        return None

    def eligible(self, component: nn.Module) -> frozenset[str]:
        """Linear layers, but not the output projection inside ``nn.MultiheadAttention``, which reads its weight."""
        return frozenset(name for name, part in component.named_modules() if _is_linear(part))

    def quantize(self, pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
        """Copies, quantized.

        Raises ``ConfigError`` for a weight type with activations that it does not go with, ``ProduceError`` for int4
        in another dtype than bfloat16.
        """
        for name, spec in specs.items():
            _check(name, pristine.components[name], spec)
        made = copies(pristine, specs)
        for name, component in made.items():
            apply(component, specs[name])
        return made

    def weight_type(self, module: nn.Module) -> str | None:
        """By the weight's tensor subclass."""
        return _TENSORS.get(type(getattr(module, "weight", None)))

    def activation_type(self, module: nn.Module) -> str | None:
        """By what the weight says that inputs are to become; scales are worked out in each call."""
        how = getattr(module.weight, "act_quant_kwargs", None)
        if how is None:
            return None
        return "float8" if hasattr(how, "float8_dtype") else "int8"

    def packing(self, module: nn.Module) -> str:
        """By the shape of what shares a scale."""
        if self.weight_type(module) is None:
            return ""
        weight: Any = module.weight
        *outer, inner = weight.block_size
        if inner < weight.shape[-1]:
            return f"group {inner}"
        return "axis 0" if set(outer) == {1} else "tensor"

    def dequantize(self, module: nn.Module) -> Dequantized:
        """Data times scale, which has a dimension of 1 where values share it; int4 lies in the tiles of its kernel."""
        weight: Any = module.weight
        if isinstance(weight, Int4TilePackedTo4dTensor):
            return tiles(weight.qdata, weight.scale_and_zero, tuple(weight.shape))
        if self.weight_type(module) is not None:
            values = weight.qdata.float() * weight.scale.float()
            return Dequantized(values, values)
        raise TypeError(f"{type(module).__name__}: its weight is not quantized")

    def quantize_input(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Symmetric, with one scale for each token or one for all, worked out in the inputs' dtype as torchao does."""
        weight: Any = module.weight
        how = getattr(weight, "act_quant_kwargs", None)
        if how is None:
            return x
        whole = isinstance(how.granularity, PerTensor)
        largest = x.abs().amax() if whole else x.abs().amax(dim=-1, keepdim=True)
        if isinstance(weight, Int8Tensor):
            # Quotients are of the scales' dtype: float32, but the inputs' own before 0.18.
            scale = (largest / _INT8_STEPS).clamp(min=torch.finfo(torch.float32).eps).to(weight.scale.dtype)
            return (x * (1.0 / scale)).round().clamp(-128, 127).float() * scale.float()
        scale = (largest / torch.finfo(how.float8_dtype).max).float()
        return (x.float() / scale).to(how.float8_dtype).float() * scale


def tiles(data: torch.Tensor, scale_and_zero: torch.Tensor, shape: tuple[int, ...]) -> Dequantized:
    """Values of torch's kernel for int4, ``(code - 8) * scale + zero``, which it rounds once, to bfloat16.

    ``scale_and_zero [groups, outputs, 2]``. What the weight was padded with to whole tiles is left off.
    """
    scale, zero = scale_and_zero.float().transpose(0, 1).unsqueeze(-2).unbind(-1)  # [outputs, groups, 1] each
    codes = unpack_tiles(data).unflatten(1, (scale.shape[1], -1))
    values = ((codes - 8) * scale + zero).flatten(1)[: shape[0], : shape[1]]
    size = codes.shape[2]
    return Dequantized(values, values, size, alike(codes, 4)[: shape[0], : shape[1] // size])


def apply(component: nn.Module, spec: Spec) -> None:
    """Quantize a component in place."""
    quantize_(
        component,
        CONFIGS[spec.weights, spec.activations](),
        filter_fn=lambda module, name: _is_linear(module) and spec.means(name),
    )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)


def _check(name: str, component: nn.Module, spec: Spec) -> None:
    if (spec.weights, spec.activations) not in CONFIGS:
        raise ConfigError(
            f"{name}: torchao has no {spec.weights} weights with {spec.activations} activations; "
            "name activations of the weights' own type (int8, float8) or none"
        )
    dtypes = {part.weight.dtype for part in component.modules() if _is_linear(part)}
    if spec.weights == "int4" and dtypes != {torch.bfloat16}:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise ProduceError(f"{name}: torchao's int4 kernel computes in bfloat16 alone, not in {found}; set dtype")


def _try(pair: tuple[str, str | None], device: str) -> str | None:
    kind, activations = pair
    what = f"{kind} weights" if activations is None else f"{kind} activations"
    if kind == "int4" and device == "cpu":
        return f"{what} need CUDA: torchao {version('torchao')} packs int4 for no kernel of a CPU"
    if pair not in CONFIGS:
        return f"{what}: torchao has none"
    layer = nn.Sequential(nn.Linear(128, 128, dtype=torch.bfloat16, device=device)).eval()
    try:
        apply(layer, Spec(weights=kind, activations=activations))
        with torch.no_grad():
            layer(torch.ones(16, 128, dtype=torch.bfloat16, device=device))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError, ImportError) as error:
        return f"{what} do not run on {device}: {one_line(error)}"
    return None


def backend() -> TorchAO:
    """The backend that the registry loads."""
    return TorchAO()

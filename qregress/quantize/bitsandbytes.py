"""bitsandbytes, with its modules in place of linear ones, set up as ``BitsAndBytesConfig`` does by default.

int8 is LLM.int8() (https://arxiv.org/abs/2208.07339): each call quantizes its inputs too, with a scale for each token,
but for columns in which any is 6 or more. nf4 and fp4 are those of QLoRA (https://arxiv.org/abs/2305.14314), with a
scale for each 64 weights; unlike the configuration, which has float32, they compute in the dtype that the layer had.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import bitsandbytes as bnb
import torch
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import nn

from qregress.errors import one_line
from qregress.quantize.base import Backend, Dequantized, Spec
from qregress.quantize.copies import copies

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# One line for each call of each layer, where inputs are bfloat16. They are: it is said here, in quantize_input.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)

_OUTLIER = 6.0  # llm_int8_threshold
_STEPS = 127.0  # of int8 to either side


class BitsAndBytes(Backend):
    """See ``base.Backend``."""

    def prepare(
        self, weights: Iterable[str], device: str, say: Callable[[str], None], activations: Iterable[str] = ()
    ) -> str | None:
        """Quantize and call a small layer with each type: its binary is for CUDA versions of its own choice."""
        _ = say, activations
        for kind in sorted(set(weights)):
            layer = nn.Sequential(nn.Linear(128, 128, dtype=torch.float16, device=device)).eval()
            try:
                apply(layer, Spec(weights=kind))
                with torch.no_grad():
                    layer(torch.ones(16, 128, dtype=torch.float16, device=device))
            except Exception as error:  # noqa: BLE001 - a binary that is not there raises as whatever misses it
                return f"{kind} weights do not run on {device}: {one_line(error)}"
        return None

    def eligible(self, component: nn.Module) -> frozenset[str]:
        """Linear layers, but not those that transformers keeps in float32, and so from bitsandbytes.

        T5 casts the inputs of ``wo`` to the dtype of that layer's weight before calling it: four bits are uint8.
        """
        return frozenset(name for name, part in component.named_modules() if _is_for_it(component, name, part))

    def quantize(self, pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
        """Copies, their linear layers replaced."""
        made = copies(pristine, specs)
        for name, component in made.items():
            apply(component, specs[name])
        return made

    def weight_type(self, module: nn.Module) -> str | None:
        """By the parameter's class, and whether it was quantized, which moving a layer to a device does."""
        weight: Any = getattr(module, "weight", None)
        if isinstance(weight, Params4bit):
            return str(weight.quant_type) if weight.bnb_quantized else None
        return "int8" if isinstance(weight, Int8Params) and weight.dtype == torch.int8 else None

    def packing(self, module: nn.Module) -> str:
        """A scale for each output, or for each so many weights in a row."""
        weight: Any = module.weight
        kind = self.weight_type(module)
        if kind is None:
            return ""
        return "axis 0" if kind == "int8" else f"block {weight.quant_state.blocksize}"

    def dequantize(self, module: nn.Module) -> Dequantized:
        """Data times scale; of four bits, what the code book that is kept with a weight has for each."""
        weight: Any = module.weight
        kind = self.weight_type(module)
        if kind is None:
            raise TypeError(f"{type(module).__name__}: its weight is not quantized")
        if kind == "int8":
            state: Any = module.state
            scale = weight.SCB if weight.SCB is not None else state.SCB  # the first call moves it there
            values = weight.data.float() * (scale.float() / _STEPS).unsqueeze(1)
        else:
            values = _four_bits(weight.data, weight.quant_state)
        return Dequantized(values, values)

    def quantize_input(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """int8: in float16, symmetric, a scale for each token; columns with an outlier stay as they are."""
        if not isinstance(module, Linear8bitLt):
            return x
        half = x.half().reshape(-1, x.shape[-1])
        outliers = half.abs() >= _OUTLIER
        inliers = half.masked_fill(outliers, 0.0)
        steps = inliers.abs().amax(dim=1, keepdim=True).float() / _STEPS
        rounded = torch.where(steps > 0, (inliers.float() / steps).round() * steps, 0.0)
        columns = outliers.any(dim=0)
        return torch.where(columns, x.reshape_as(half).float(), rounded).reshape(x.shape)


def apply(component: nn.Module, spec: Spec) -> None:
    """Quantize a component in place, on the device that it is on."""
    parts = dict(component.named_modules())
    for name, part in parts.items():
        if _is_for_it(component, name, part) and spec.means(name):
            component.set_submodule(name, _replacement(part, spec.weights))


def _is_for_it(component: nn.Module, name: str, part: nn.Module) -> bool:
    kept = getattr(component, "_keep_in_fp32_modules", None) or ()
    return type(part) is nn.Linear and not any(word in kept for word in name.split("."))


def _replacement(linear: nn.Linear, kind: str | None) -> nn.Linear:
    """Its weight is quantized by moving it to where it is; its bias stays the same."""
    shape = linear.in_features, linear.out_features
    weight, device = linear.weight.detach(), linear.weight.device
    made: Any
    if kind == "int8":
        made = Linear8bitLt(*shape, bias=False, has_fp16_weights=False, threshold=_OUTLIER, device="meta")
        made.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(device)
    else:
        made = Linear4bit(
            *shape, bias=False, compute_dtype=weight.dtype, compress_statistics=False, quant_type=kind, device="meta"
        )
        made.weight = Params4bit(weight, compress_statistics=False, quant_type=kind, module=made).to(device)
    made.bias = linear.bias
    return made.eval()  # type: ignore[no-any-return]


def _four_bits(data: Any, state: Any) -> torch.Tensor:
    """Two values a byte, the first in its upper half; those of a block share a scale."""
    absmax = state.absmax
    if getattr(state, "packing_format_for_cpu", False):
        # Where a CPU multiplies bfloat16 by itself, the first call packs data for its kernel, and rounds the scales.
        absmax = absmax.t().reshape(-1)
        data, _ = bnb.functional._convert_weight_packed_for_cpu_inverse(data, copy.copy(state))  # noqa: SLF001
    packed = data.reshape(-1).view(torch.uint8)
    codes = torch.stack((packed >> 4, packed & 15), dim=1).reshape(-1).long()
    table: torch.Tensor = state.code.float()
    values = table[codes]
    scale: torch.Tensor = absmax.float().repeat_interleave(state.blocksize)[: values.numel()]
    return (values * scale).reshape(state.shape)


def backend() -> BitsAndBytes:
    """The backend that the registry loads."""
    return BitsAndBytes()

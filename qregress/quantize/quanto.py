"""optimum-quanto, through its own ``quantize`` and ``freeze``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import ninja
import torch
from optimum.quanto import (
    Calibration,
    QTensor,
    WeightQBitsTensor,
    WeightQBytesTensor,
    freeze,
    qfloat8_e4m3fn,
    qfloat8_e4m3fnuz,
    qfloat8_e5m2,
    qint2,
    qint4,
    qint8,
    quantize,
)
from optimum.quanto.library.extensions import get_extension
from torch import nn

from qregress.errors import one_line
from qregress.quantize import extensions, marlin
from qregress.quantize.base import Backend, Cuts, Dequantized, Spec, alike, sampled
from qregress.quantize.copies import copies
from qregress.quantize.packed import unpack, unpack_marlin, unpack_marlin_scales, unpack_tiles

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_TYPES = {
    "float8": qfloat8_e4m3fn,
    "float8_e4m3fnuz": qfloat8_e4m3fnuz,
    "float8_e5m2": qfloat8_e5m2,
    "int8": qint8,
    "int4": qint4,
    "int2": qint2,
}
#: From this compute capability on quanto packs float8 weights for its Marlin kernel.
_MARLIN = (8, 0)
_FEW_BITS = 4
_NAMES = {qtype.name: name for name, qtype in _TYPES.items()}


#: Codes, scale and shift, as quanto has them in a weight that is packed for no kernel.
_Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class Quanto(Backend):
    """See ``base.Backend``."""

    def prepare(
        self,
        weights: Iterable[str],
        device: str,
        say: Callable[[str], None],
        activations: Iterable[str] = (),  # noqa: ARG002 - they need nothing more
    ) -> str | None:
        """Compile what quanto's kernels need (``extensions.NEEDED``), and quantize something once.

        What the library sets up on first use and keeps (8 KiB) would else count as the first cell's memory.
        """
        wanted = set(weights)
        missing = self._build(wanted, device, say)
        if missing is None:
            for kind in sorted(wanted):
                layer = nn.Sequential(nn.Linear(128, 128, dtype=torch.bfloat16, device=device))
                apply(layer, Spec(weights=kind))
        return missing

    def _build(self, weights: set[str], device: str, say: Callable[[str], None]) -> str | None:
        extension = extensions.NEEDED["quanto", device.partition(":")[0]]
        needing = set(extension.weights.intersection(weights))
        if extension is extensions.CUDA and torch.cuda.get_device_capability(device) < _MARLIN:
            needing -= {"float8"}
        if not needing:
            return None
        what = f"{' and '.join(sorted(needing))} weights need optimum-quanto's {extension.name}"
        if shutil.which("ninja") is None:
            # The package's own is on PATH in an activated environment only. One that is there stays the one that is
            # used: another version of ninja would not know the log of what is built, and build it again.
            os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), ninja.BIN_DIR])
        if not extensions.is_built(extension):
            tool = extensions.lacking(extension)
            if tool is not None:
                return f"{what}: no {tool.name} found; {tool.how}"
            say(f"building optimum-quanto's {extension.name}, once ({extension.cost})")
        try:
            get_extension(extension.library).lib  # noqa: B018 - what builds and loads it
        except (RuntimeError, OSError, ImportError) as error:
            return f"{what}: its build failed on {platform.machine()}: {one_line(error)}"
        return None

    def eligible(self, component: nn.Module) -> frozenset[str]:
        """Quanto quantizes the weights of linear layers and of 2-d convolutions."""
        parts = component.named_modules()
        return frozenset(name for name, part in parts if isinstance(part, (nn.Linear, nn.Conv2d)))

    def quantize(self, pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
        """Copies, quantized and frozen: only frozen weights take less memory."""
        made = copies(pristine, specs)
        for name, module in made.items():
            apply(module, specs[name])
        return made

    def calibration(self) -> AbstractContextManager[None]:
        """Of each layer's inputs and outputs, from the largest value of each call, in an exponential mean (0.9)."""
        scales: AbstractContextManager[None] = Calibration()
        return scales

    def weight_type(self, module: nn.Module) -> str | None:
        """By the tensor's own qtype, not by the module's class: an unfrozen module has a plain weight."""
        weight = _weight(module)
        if weight is None:
            return None
        name: str = weight.qtype.name
        return _NAMES.get(name, name)

    def activation_type(self, module: nn.Module) -> str | None:
        """By the module's own type, and its scales, which are 1 until they are calibrated."""
        kind = getattr(module, "activation_qtype", None)
        if kind is None:
            return None
        name = _NAMES.get(kind.name, kind.name)
        calibrated = any(float(getattr(module, f"{side}_scale")) != 1 for side in ("input", "output"))
        return name if calibrated else f"{name} without a scale"

    def packing(self, module: nn.Module) -> str:
        """Groups along the inputs where there are any, else one scale for each index of an axis."""
        weight = _weight(module)
        if weight is None:
            return ""
        size = getattr(weight, "_group_size", None)
        if size is not None:
            return f"group {size}"
        return "tensor" if weight.axis is None else f"axis {weight.axis}"

    def dequantize(self, module: nn.Module) -> Dequantized:
        """From data, scales and shifts; what is packed for one kernel is converted back first."""
        weight = _weight(module)
        if weight is None:
            raise TypeError(f"{type(module).__name__}: its weight is not quantized")
        cuts = _cuts(weight)
        codes, scale, shift = self._converted(weight) or _parts(_as_quantized(weight))
        group = getattr(weight, "_group_size", None) or weight.numel() // len(weight)
        # Codes of few bits are counted in every group; of eight, equal ones are rare.
        few = weight.qtype.bits <= _FEW_BITS
        chance = alike(codes.reshape(len(weight), -1, group), weight.qtype.bits) if few else None
        shape = weight.shape
        if shift is None:
            values = rounded = (codes.float() * scale.float()).reshape(shape)
        elif shift.dtype.is_floating_point:  # a scaled shift, else a zero point
            product = codes.float() * scale.float()
            values = (product - shift.float()).reshape(shape)
            rounded = product.reshape(shape).square_().addcmul_(values, values).sqrt_()
        else:
            values = rounded = ((codes.float() - shift.float()) * scale.float()).reshape(shape)

        def stepwise() -> torch.Tensor:
            if shift is None:
                steps: torch.Tensor = codes.to(scale.dtype) * scale
            elif shift.dtype.is_floating_point:
                steps = codes * scale - shift
            else:
                steps = (codes.to(torch.int8) - shift.to(torch.int8)) * scale
            return steps.float().reshape(shape)

        return Dequantized(
            values=values,
            rounded=rounded,
            group=group,
            alike=chance,
            sample=None if few else sampled(codes),
            stepwise=stepwise,
            cuts=cuts,
        )

    def _converted(self, weight: QTensor) -> _Parts | None:
        """In plain torch, of packings that are known here; ``None`` where quanto is to be asked.

        It is asked once for each shape in a process, and has to say the same. For all layers it takes too long: it
        looks int4 up by multiplying with an identity matrix, and lays the order of a Marlin tile out on the host, layer
        by layer.
        """
        convert = _CONVERSIONS.get(type(weight).__name__)
        if convert is None or not weight.is_cuda:
            return None
        kind = type(weight), weight.shape, weight.dtype, weight.qtype, getattr(weight, "_group_size", None)
        if kind not in _SAME:
            _SAME[kind] = _is_known(convert, weight)
        return convert(weight) if _SAME[kind] else None

    def quantize_input(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Quantized activations are tensors of quanto's own."""
        if not isinstance(x, QTensor):
            return super().quantize_input(module, x)
        seen: torch.Tensor = x._data.float() * x._scale.float()  # noqa: SLF001 - what it flattens to
        return seen


def apply(component: nn.Module, spec: Spec) -> None:
    """Quantize and freeze a component in place."""
    declare(component, spec)
    freeze(component)


def declare(component: nn.Module, spec: Spec) -> None:
    """Put quanto's modules in place of a component's own, weights not frozen yet: those can be trained."""
    quantize(
        component,
        weights=_TYPES[spec.weights] if spec.weights is not None else None,
        activations=_TYPES[spec.activations] if spec.activations is not None else None,
        include=list(spec.include) or None,
        exclude=list(spec.exclude) or None,
    )


def _weight(module: nn.Module) -> QTensor | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, QTensor) else None


def _as_quantized(weight: QTensor) -> QTensor:
    """The same weight with its data as it was quantized, not packed for one kernel."""
    if type(weight) in {WeightQBytesTensor, WeightQBitsTensor}:
        return weight
    return weight.weight_qbits_tensor() if isinstance(weight, WeightQBitsTensor) else weight.weight_qbytes_tensor()


def _parts(weight: QTensor) -> _Parts:
    """Of a weight that is packed for no kernel."""
    return unpack(weight._data), weight._scale, getattr(weight, "_shift", None)  # noqa: SLF001


def _from_marlin(weight: QTensor) -> _Parts:
    codes = unpack_marlin(weight._data._data).view(torch.float8_e4m3fn)  # noqa: SLF001
    return codes, unpack_marlin_scales(weight._scale), None  # noqa: SLF001


def _from_tinygemm(weight: QTensor) -> _Parts:
    """Its shift is that of the middle of the range, and loses bits on its way there and back."""
    scale, shift = (part.t().reshape(-1, 1) for part in weight._scale_shift.unbind(2))  # noqa: SLF001
    codes = unpack_tiles(weight._data._data).to(torch.uint8)  # noqa: SLF001
    return codes.reshape(-1, weight._group_size), scale, 2 ** (weight.qtype.bits - 1) * scale - shift  # noqa: SLF001


#: Class of a weight -> how it is converted back, as optimum-quanto 0.2.7 packs it on CUDA.
_CONVERSIONS: dict[str, Callable[[QTensor], _Parts]] = {
    "MarlinF8QBytesTensor": _from_marlin,
    "TinyGemmWeightQBitsTensor": _from_tinygemm,
}


def _is_known(convert: Callable[[QTensor], _Parts], weight: QTensor) -> bool:
    """Whether quanto converts a weight to the same."""
    told = _parts(_as_quantized(weight))
    try:
        return all(map(_equal, convert(weight), told))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - another release packs it in another way, in whatever dimensions
        return False


#: Kind of weight -> whether what it is converted to here is what quanto converts it to.
_SAME: dict[tuple[Any, ...], bool] = {}


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Bit by bit."""
    if one is None or other is None:
        return one is other
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # Copies, as what has one column may have any stride there, and then counts as contiguous, and has no view in bytes.
    copies = (each.clone(memory_format=torch.contiguous_format) for each in (one, other))
    return torch.equal(*(each.flatten().view(torch.uint8) for each in copies))


def _cuts(weight: QTensor) -> Callable[[int, torch.Tensor], Cuts | None] | None:
    """Of what the float8 Marlin kernel multiplies."""
    if type(weight).__name__ != "MarlinF8QBytesTensor":
        return None
    outputs, inputs = (int(size) for size in weight.shape)
    device = torch.cuda.get_device_properties(weight.device)
    blocks, shared = int(device.multi_processor_count), int(device.shared_memory_per_block_optin)  # type: ignore[attr-defined]
    return partial(marlin.cuts, outputs, inputs, blocks, shared)


def backend() -> Quanto:
    """The backend that the registry loads."""
    return Quanto()

"""One call of one quantized layer: what is kept of it, and what it says of the kernel once it is judged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import torch
from msgspec import UNSET
from torch import nn
from torch.nn import functional

from qregress.quantize import structure
from qregress.quantize.base import Backend, Cuts, Dequantized
from qregress.quantize.rounding import Layers, compared_with_exact, judge
from qregress.quantize.structure import Compared
from qregress.record import LayerFidelity

#: Of the largest number of a dtype, the power up to which inputs are compared: products and sums of squares are finite.
_POWER = 0.4
_ALIKE = 1 / 16


def class_of(module: nn.Module) -> str:
    """Of the weight: what names the kernel."""
    weight = module.weight
    return "Tensor" if type(weight) is nn.Parameter else type(weight).__name__


class Call(msgspec.Struct, frozen=True):
    """One call of one layer as a product: ``x [tokens, inputs]``, ``weight [outputs, inputs]``.

    ``left_out``: tokens of the call that are not among them, see ``LayerFidelity``. ``exact``: the dtype that the
    product is made in. ``loss``: norms of what quantizing changed and of the unquantized weight, on the device.
    ``cuts``: of these tokens; they depend on how many ``tokens`` there were in all, and which of them are left: a layer
    of which some are left out is judged ``alone``, by its name.
    """

    name: str
    tensor: str
    dtype: torch.dtype
    unit: float
    x: torch.Tensor
    output: torch.Tensor
    weight: torch.Tensor
    known: Dequantized
    bias: torch.Tensor | None
    left_out: int
    loss: torch.Tensor | None
    cuts: Cuts | None
    tokens: int
    alone: str

    @property
    def nbytes(self) -> int:
        """What it keeps on the device until it is judged."""
        known = self.known
        kept = (self.x, self.output, self.weight, known.values, known.rounded)
        return sum({each.data_ptr(): each.nbytes for each in kept}.values())

    @property
    def shape(self) -> tuple[Any, ...]:
        """What those that are judged together have in common."""
        known = self.known
        return (
            *(self.tensor, self.dtype, self.unit, self.x.shape, self.x.device, self.weight.shape, self.bias is None),
            *(known.group, known.alike.shape if known.alike is not None else None, known.rounded is known.values),
            *(self.tokens, self.alone, self.loss is None),
        )


@torch.no_grad()
def taken(
    name: str,
    module: nn.Linear | nn.Conv2d,
    x: torch.Tensor,
    output: torch.Tensor,
    backend: Backend,
    original: torch.Tensor | None,
    rows: int,
) -> Call:
    """What is kept of a call: weights may be changed back right after it.

    ``original``: its unquantized weight, where that is at hand. Tokens whose inputs are not finite are no kernel's
    doing, and left out.
    """
    exact = torch.float64 if output.dtype == torch.float32 else torch.float32
    known = backend.dequantize(module)
    loss = None
    if original is not None:
        unquantized = original.float()
        parts = (known.values - unquantized, unquantized)
        loss = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts])
    unit = _unit(module, output)
    with _full_precision():
        x = backend.quantize_input(module, x)
    cuts, tokens = None, x.numel() // x.shape[-1]
    if isinstance(module, nn.Conv2d):
        x, output = _patches(module, x, output, rows)
    else:
        x, output = x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
        chosen = structure.spread(len(x), rows, torch.device("cpu"))
        cuts = known.cuts(len(x)) if known.cuts is not None else None
        cuts = cuts.of(chosen) if cuts is not None else None
        chosen = chosen.to(x.device)
        x, output = x[chosen], output[chosen]
    fit = torch.linalg.vector_norm(x, math.inf, dim=1) <= torch.finfo(exact).max ** _POWER  # false of NaN too
    left_out = len(x) - int(fit.sum())
    if left_out:
        x, output = x[fit], output[fit]
        cuts = cuts.of(fit) if cuts is not None else None
    return Call(
        name=name,
        tensor=class_of(module),
        dtype=output.dtype,
        unit=unit,
        x=x.to(exact),
        output=output.to(exact),
        weight=known.values.flatten(1).to(exact),
        known=known,
        bias=module.bias.to(exact) if module.bias is not None else None,
        left_out=left_out,
        loss=loss,
        cuts=cuts,
        alone=name if left_out and cuts is not None else "",
        tokens=tokens,
    )


@torch.no_grad()
def judged(calls: Sequence[Call]) -> list[LayerFidelity]:
    """Of layers of one shape, in their order."""
    first = calls[0]
    with _full_precision():
        compared = compared_with_exact(_stacked(calls), first.dtype, first.unit)
        verdicts = judge(compared)
        norms = [
            torch.linalg.vector_norm(part, dim=(1, 2), dtype=torch.float64)
            for part in (compared.error, compared.allowed, compared.expected)
        ]
        if first.loss is not None:
            norms += torch.stack([cast("torch.Tensor", call.loss) for call in calls]).unbind(1)
        told = []
        sizes = torch.stack(norms, dim=1).tolist()
        for index, (call, (where, excess), (error, bound, whole, *lost)) in enumerate(
            zip(calls, verdicts, sizes, strict=True)
        ):
            fidelity = LayerFidelity(
                name=call.name,
                tensor=call.tensor,
                inputs=call.weight.shape[1],
                outputs=call.weight.shape[0],
                dtype=str(call.dtype).removeprefix("torch."),
                tokens=len(call.x),
                error=_share(error, whole) if len(call.x) else None,
                bound=_share(bound, whole) if len(call.x) else None,
                loss=_share(*lost) if lost else None,
                where=where,
                excess=excess,
                kind="",
                left_out=call.left_out or UNSET,
            )
            told.append(_explained(fidelity, call, compared.of(index)) if where else fidelity)
    return told


def _stacked(calls: Sequence[Call]) -> Layers:
    known, exact = [call.known for call in calls], calls[0].x.dtype
    weight = rounded = _stack([call.weight for call in calls])
    if known[0].rounded is not known[0].values:
        rounded = _stack([each.rounded.flatten(1).to(exact) for each in known])
    alike = [each.alike.to(exact) for each in known if each.alike is not None]
    biases = [call.bias for call in calls if call.bias is not None]
    return Layers(
        x=_stack([call.x for call in calls]),
        weight=weight,
        rounded=rounded,
        group=known[0].group or weight.shape[2],
        alike=_stack(alike) if alike else torch.full((1, 1, 1), _ALIKE, dtype=exact, device=weight.device),
        bias=_stack(biases) if biases else None,
        output=_stack([call.output for call in calls]),
        cuts=calls[0].cuts,
    )


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along a new first dimension; a single one is not copied."""
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)


def _explained(fidelity: LayerFidelity, call: Call, compared: Compared) -> LayerFidelity:
    """Of a layer that is beyond its bound: how far, and the structure of its error."""
    where, excess = fidelity.where, fidelity.excess
    error, bound = fidelity.error, fidelity.bound
    weight = call.weight
    if excess is None or excess <= _coherent(fidelity.inputs):
        # Of a few values, roundings add up in ways that no bound foresees; but then all of them are known.
        values = call.known.stepwise() if call.known.stepwise is not None else call.known.values.to(call.dtype)
        unpacked = msgspec.structs.replace(_stacked([call]), weight=values.flatten(1).to(weight.dtype).unsqueeze(0))
        other = compared_with_exact(unpacked, call.dtype, call.unit)
        [(there, beyond)] = judge(other)
        if _excess(beyond) < _excess(excess):
            where, excess, compared = there, beyond, other.of(0)
            norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in (compared.error, compared.allowed)]
            whole = torch.linalg.vector_norm(compared.expected, dtype=torch.float64)
            error, bound = (_share(float(norm), float(whole)) for norm in norms)
    kind = structure.describe(call.x, weight, call.known.group or weight.shape[1], compared) if where else None
    return msgspec.structs.replace(
        fidelity,
        error=error,
        bound=bound,
        where=where,
        excess=excess,
        kind=kind.name if kind is not None else "",
        detail=(kind.detail if kind is not None else "") or UNSET,
    )


def _excess(excess: float | None) -> float:
    return math.inf if excess is None else excess


def _coherent(inputs: int) -> float:
    """How many times a rounding's root mean square all roundings of a sum's weights make if they have one sign.

    By Cauchy and Schwarz, where every weight of ``inputs`` is off by a unit in the last place, twice what one may be.
    """
    return 2 * math.sqrt(3 * inputs)


def _patches(module: nn.Conv2d, x: torch.Tensor, output: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``[tokens, inputs]`` of some places of an output, in the order of the weight, and ``[tokens, outputs]``.

    Not unfolded as a whole, which of what decodes latents takes gigabytes.
    """
    images, _, height, width = output.shape
    chosen = structure.spread(images * height * width, rows, x.device)
    image, place = chosen // (height * width), (chosen // width % height, chosen % width)
    padding = cast("tuple[int, ...]", module.padding)  # those with a name are not compared
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    down, across = (
        place[axis][:, None] * module.stride[axis]
        + torch.arange(module.kernel_size[axis], device=x.device) * module.dilation[axis]
        for axis in range(2)
    )
    patches = padded[image[:, None, None], :, down[:, :, None], across[:, None, :]]  # [tokens, height, width, channels]
    return patches.permute(0, 3, 1, 2).flatten(1), output[image, :, place[0], place[1]]


def _unit(module: nn.Module, output: torch.Tensor) -> float:
    """Unit roundoff of the dtype; of TF32, where torch's settings allow it for float32 on CUDA: 11 bits, as float16."""
    if output.dtype == torch.float32 and output.is_cuda:
        convolution = isinstance(module, nn.Conv2d) and torch.backends.cudnn.allow_tf32
        if convolution or torch.backends.cuda.matmul.allow_tf32:
            return torch.finfo(torch.float16).eps / 2
    return torch.finfo(output.dtype).eps / 2


def _share(part: float, whole: float) -> float | None:
    """Of Frobenius norms; ``None``: not finite."""
    if not math.isfinite(part + whole):
        return None
    return part / whole if whole > 0 else float(part > 0)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Float32 products in float32: TF32 has the mantissa of float16, and autocast would round them all."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)

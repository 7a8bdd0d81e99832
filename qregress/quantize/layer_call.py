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
from qregress.quantize.base import Backend, Dequantized, alike
from qregress.quantize.rounding import Layers, compared_with_exact, judge
from qregress.quantize.structure import Compared, Kind
from qregress.record import LayerFidelity

#: Of the largest number of a dtype, the power up to which inputs are compared: products and sums of squares are finite.
_POWER = 0.4
_ALIKE = 1 / 16
#: Layers that are looked at again are so in so many parts, as each takes as much memory as judging it did.
_PARTS = 4
#: Of so many outputs roundings are never along the bias by chance: in 3 % of random directions where there is one, in
#: 1e-4 of eight.
_OUTPUTS = 32


def class_of(module: nn.Module) -> str:
    """Of the weight: what names the kernel."""
    weight = module.weight
    return "Tensor" if type(weight) is nn.Parameter else type(weight).__name__


class Call(msgspec.Struct, frozen=True):
    """One call of one layer as a product: ``x [tokens, inputs]`` and ``output [tokens, outputs]`` as they were.

    ``chosen``: which of all ``tokens`` of the call these are. ``left_out``: how many more there would be, see
    ``LayerFidelity``. ``original``: the unquantized weight.
    """

    name: str
    tensor: str
    unit: float
    x: torch.Tensor
    output: torch.Tensor
    known: Dequantized
    bias: torch.Tensor | None
    original: torch.Tensor | None
    tokens: int
    chosen: torch.Tensor
    left_out: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """That the kernel computes in."""
        return self.output.dtype

    @property
    def exact(self) -> torch.dtype:
        """That the product is made in."""
        return torch.float64 if self.dtype == torch.float32 else torch.float32

    @property
    def nbytes(self) -> int:
        """What it takes on the device until it is judged, and then in the dtype that products are made in."""
        known = self.known
        kept = (self.x, self.output, known.values, known.rounded)
        return sum({each.data_ptr(): each.numel() for each in kept}.values()) * self.exact.itemsize

    @property
    def shape(self) -> tuple[Any, ...]:
        """What those that are judged together have in common."""
        known = self.known
        optional = (self.bias, self.original, known.alike, known.sample)
        return (
            *(self.tensor, self.dtype, self.unit, self.tokens, self.x.dtype, self.x.shape, self.x.device),
            *(known.values.shape, known.group, known.rounded is known.values),
            *((part.dtype, part.shape) if part is not None else None for part in optional),
        )

    def of(self, fit: torch.Tensor) -> Call:
        """Of those tokens alone of which a mask is true."""
        return msgspec.structs.replace(
            self,
            x=self.x[fit],
            output=self.output[fit],
            chosen=self.chosen[fit],
            left_out=self.left_out + len(fit) - int(fit.sum()),
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
    """What is kept of a call: other weights may be put in place right after it, and inputs and outputs changed.

    ``original``: its unquantized weight, where that is at hand; that and the quantized weight's codes are not copied.
    As little as possible is done here: of layers that are judged together everything else is done once.
    """
    known = backend.dequantize(module)
    unit = _unit(module, output)
    x = backend.quantize_input(module, x)
    if isinstance(module, nn.Conv2d):
        images, _, height, width = output.shape
        tokens = images * height * width
        chosen = structure.spread(tokens, rows, x.device)
        x, output = _patches(module, x, output, chosen)
    else:
        x, output = x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
        tokens = len(x)
        chosen = structure.spread(tokens, rows, x.device)
        x, output = x[chosen], output[chosen]
    return Call(
        name=name,
        tensor=class_of(module),
        unit=unit,
        x=x,
        output=output,
        known=known,
        bias=module.bias.clone() if module.bias is not None else None,
        original=original.detach() if original is not None else None,
        tokens=tokens,
        chosen=chosen,
    )


@torch.no_grad()
def judged(calls: Sequence[Call]) -> list[LayerFidelity]:
    """Of layers of one shape, in their order.

    Tokens whose inputs are not finite are no kernel's doing, and left out.
    """
    first = calls[0]
    with _full_precision():
        layers = _stacked(calls)
        most = torch.finfo(first.exact).max ** _POWER
        fit = torch.linalg.vector_norm(layers.x, math.inf, dim=2) <= most  # false of NaN too
        every = fit.all(1).tolist()
        if not all(every):
            apart = (call if fits else call.of(mask) for call, fits, mask in zip(calls, every, fit, strict=True))
            return [layer for call in apart for layer in judged([call])]
        losses = _losses(calls, layers.weight)  # first, as it takes as much memory for a moment as all weights
        compared = compared_with_exact(layers, first.dtype, first.unit)
        verdicts = judge(compared)
        sizes = torch.stack([*_norms(compared), *losses], dim=1).tolist()
        told = []
        for call, (where, excess), (error, bound, whole, *lost) in zip(calls, verdicts, sizes, strict=True):
            fidelity = LayerFidelity(
                name=call.name,
                tensor=call.tensor,
                inputs=layers.weight.shape[2],
                outputs=layers.weight.shape[1],
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
            told.append(fidelity)
        beyond = [index for index, fidelity in enumerate(told) if fidelity.where]
        kinds = structure.of_bias(compared) if beyond else []
        size = -(-len(calls) // _PARTS)
        for start in range(0, len(beyond), size):
            part = beyond[start : start + size]
            shown = {index: _Shown(told[index], compared, index, kinds[index]) for index in part}
            doubtful = [index for index in part if kinds[index] != structure.NO_BIAS or told[index].outputs < _OUTPUTS]
            for index, seen in (shown | _again(calls, layers, doubtful, told)).items():
                told[index] = _explained(seen, layers, index)
    return told


class _Shown(msgspec.Struct, frozen=True):
    """A layer that is told of, at its place among those that were compared, and its kind if its bias explains it."""

    fidelity: LayerFidelity
    compared: Compared
    place: int
    kind: Kind | None


def _norms(compared: Compared) -> list[torch.Tensor]:
    """Of the error, of what is allowed and of what is expected, ``[layers]`` each."""
    return [
        torch.linalg.vector_norm(part, dim=(1, 2), dtype=torch.float64)
        for part in (compared.error, compared.allowed, compared.expected)
    ]


def _losses(calls: Sequence[Call], weight: torch.Tensor) -> list[torch.Tensor]:
    """Norms of what quantizing changed and of unquantized weights, ``[layers]`` each; nothing where those are not.

    ``weight``: the quantized ones, ``[layers, outputs, inputs]``.
    """
    originals = [call.original for call in calls if call.original is not None]
    if not originals:
        return []
    unquantized = _stack(originals).flatten(2)
    return [_norm(unquantized - weight), _norm(unquantized)]


def _norm(weight: torch.Tensor) -> torch.Tensor:
    """``[layers]``. Norms of rows in float32, of those in float64: float64 alone would make a copy, twice as large."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    rows = torch.linalg.vector_norm(weight, dim=2, dtype=exact)
    whole: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return whole


def _stacked(calls: Sequence[Call]) -> Layers:
    first, known = calls[0], [call.known for call in calls]
    exact, cuts = first.exact, first.known.cuts
    weight = rounded = _stack([each.values.flatten(1) for each in known]).to(exact)
    if known[0].rounded is not known[0].values:
        rounded = _stack([each.rounded.flatten(1) for each in known]).to(exact)
    biases = [call.bias for call in calls if call.bias is not None]
    return Layers(
        x=_stack([call.x for call in calls]).to(exact),
        weight=weight,
        rounded=rounded,
        group=known[0].group or weight.shape[2],
        alike=_alike(known, weight),
        bias=_stack(biases).to(exact) if biases else None,
        output=_stack([call.output for call in calls]).to(exact),
        cuts=cuts(first.tokens, first.chosen) if cuts is not None else None,
    )


def _alike(known: Sequence[Dequantized], weight: torch.Tensor) -> torch.Tensor:
    """Of each layer and its groups the chance that two values are equal."""
    parts = [each.alike for each in known if each.alike is not None]
    if parts:
        return _stack(parts).to(weight.dtype)
    samples = [each.sample for each in known if each.sample is not None]
    if samples:
        return alike(_stack(samples), 8).to(weight.dtype)[:, None, None]
    return torch.full((1, 1, 1), _ALIKE, dtype=weight.dtype, device=weight.device)


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along a new first dimension; a single one is not copied."""
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)


def _again(
    calls: Sequence[Call], layers: Layers, beyond: Sequence[int], told: Sequence[LayerFidelity]
) -> dict[int, _Shown]:
    """Of layers that are beyond their bound, those that are less so, or not, by values as a kernel may have them.

    Of a few values, roundings add up in ways that no bound foresees; but then all of them are known. Each with its
    errors by those values.
    """
    maybe = [
        index for index in beyond if (excess := told[index].excess) is None or excess <= _coherent(told[index].inputs)
    ]
    if not maybe:
        return {}
    first, known = calls[0], [calls[index].known for index in maybe]
    values = [each.stepwise() if each.stepwise is not None else each.values.to(first.dtype) for each in known]
    some = layers.of(maybe) if len(calls) > 1 else layers
    unpacked = msgspec.structs.replace(some, weight=_stack([each.flatten(1) for each in values]).to(first.exact))
    compared = compared_with_exact(unpacked, first.dtype, first.unit)
    sizes = torch.stack(_norms(compared), dim=1).tolist()
    kinds = structure.of_bias(compared)
    found = {}
    for place, (index, (where, excess), (error, bound, whole)) in enumerate(
        zip(maybe, judge(compared), sizes, strict=True)
    ):
        if _excess(excess) < _excess(told[index].excess):
            fidelity = msgspec.structs.replace(
                told[index], where=where, excess=excess, error=_share(error, whole), bound=_share(bound, whole)
            )
            found[index] = _Shown(fidelity, compared, place, kinds[place])
    return found


def _explained(shown: _Shown, layers: Layers, index: int) -> LayerFidelity:
    """Of a layer that is beyond its bound: the structure of its error."""
    fidelity, kind = shown.fidelity, shown.kind
    if not fidelity.where:
        return fidelity
    if kind is None:
        of_it = shown.compared.of(shown.place)
        kind = structure.describe(layers.x[index], layers.weight[index], layers.group, of_it)
    return msgspec.structs.replace(fidelity, kind=kind.name, detail=kind.detail or UNSET)


def _excess(excess: float | None) -> float:
    return math.inf if excess is None else excess


def _coherent(inputs: int) -> float:
    """How many times a rounding's root mean square all roundings of a sum's weights make if they have one sign.

    By Cauchy and Schwarz, where every weight of ``inputs`` is off by a unit in the last place, twice what one may be.
    """
    return 2 * math.sqrt(3 * inputs)


def _patches(
    module: nn.Conv2d, x: torch.Tensor, output: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs ``[tokens, inputs]`` of some places of an output, in the order of the weight, and ``[tokens, outputs]``.

    Not unfolded as a whole, which of what decodes latents takes gigabytes.
    """
    *_, height, width = output.shape
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

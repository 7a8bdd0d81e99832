"""What roundings may do to a product, and whether an error is more than that.

The bound follows from the dtype and the number of terms, value by value: no figure of an earlier run is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import torch
from torch.nn import functional

from qregress.quantize.base import Cuts
from qregress.quantize.structure import Compared

#: Rounding errors are a sum of many: single ones are larger than their root mean square, the more so the fewer are
#: averaged. Of a patch of n, this over the root of 2 n is allowed on top.
_SIGMAS = 5.0
_SUM = torch.finfo(torch.float32).eps / 2  # kernels sum in float32
_TILE = 16


class Layers(msgspec.Struct, frozen=True):
    """Calls of layers of one shape as products, all with a first dimension for the layer, of one floating dtype.

    ``x [layers, tokens, inputs]``, ``weight [layers, outputs, inputs]``, ``bias [layers, outputs]``, ``output [layers,
    tokens, outputs]``. ``rounded``, ``group`` and ``alike`` are those of ``Dequantized``, ``cuts`` those of
    these tokens.
    """

    x: torch.Tensor
    weight: torch.Tensor
    rounded: torch.Tensor
    group: int
    alike: torch.Tensor
    bias: torch.Tensor | None
    output: torch.Tensor
    cuts: Cuts | None = None

    def of(self, which: Sequence[int]) -> Layers:
        """Some of them alone."""
        chosen = list(which)
        weight = self.weight[chosen]
        return msgspec.structs.replace(
            self,
            x=self.x[chosen],
            weight=weight,
            rounded=weight if self.rounded is self.weight else self.rounded[chosen],
            alike=self.alike[chosen] if len(self.alike) > 1 else self.alike,
            bias=self.bias[chosen] if self.bias is not None else None,
            output=self.output[chosen],
        )


def compared_with_exact(layers: Layers, dtype: torch.dtype, unit: float) -> Compared:
    """The error, and the root mean square that roundings may have, value by value.

    Of each of the terms of a product the weight is rounded (with what its format rounds on the way) and the product
    with its scale; the output before and after the bias. Values below the dtype's smallest normal one are rounded to a
    fixed grid. Float32 sums add half a unit for each of their terms. Where a sum is cut, what has come together up to
    there is rounded too.
    """
    info = torch.finfo(dtype)
    grid = info.smallest_normal * info.eps / 2
    square = layers.x.square()
    product = layers.x @ layers.weight.mT
    expected = product if layers.bias is None else product + layers.bias.unsqueeze(1)
    sums = _SUM**2 * layers.weight.shape[2]
    weight = layers.weight.square()
    rounded = weight if layers.rounded is layers.weight else layers.rounded.square()
    if layers.x.dtype == torch.float64:
        of_sums = 1.0
        # Where float32 is all that there is, what a sum passes through may be as large as if all terms had one sign.
        partial = (layers.x.abs() @ layers.weight.abs().mT).square() * sums
    else:
        # Float32 has bits to spare: what a sum passes through is as of a random walk, the mean square of its terms.
        of_sums = 1 + sums / unit**2
        partial = None
    if rounded is weight:  # mostly, and a large weight is walked over once less
        terms = (square @ weight.mT).mul_(1 + of_sums)
    else:
        terms = square @ torch.add(rounded, weight, alpha=of_sums).mT
    terms = terms.add_(_together(layers, rounded)).addcmul_(product, product).addcmul_(expected, expected)
    if layers.cuts is not None:
        terms += _handed_on(layers, layers.cuts)
    allowed = terms.mul_(unit**2).add_(square.sum(2, keepdim=True).add_(1).mul_(grid**2))
    if partial is not None:
        allowed += partial
    # What overflows in its dtype is the model's doing, not the kernel's.
    overflow = expected.abs() > info.max
    return Compared(
        error=(layers.output - expected).masked_fill_(overflow, 0.0),
        expected=expected.masked_fill(overflow, 0.0),
        product=product.masked_fill(overflow, 0.0),
        bias=layers.bias,
        allowed=allowed.div_(3).sqrt_(),
        unit=unit,
    )


def _together(layers: Layers, rounded: torch.Tensor) -> torch.Tensor:
    """What roundings of equal values add: those of one group and one level are the same rounding.

    Of inputs with a mean they do not cancel each other. Twice the chance of two equal values: inputs that are alike
    tend to have weights that are alike. ``rounded``: its square.
    """
    sums: torch.Tensor = layers.x.unflatten(2, (-1, layers.group)).sum(3)
    size = rounded.unflatten(2, (-1, layers.group)).mean(3)
    together: torch.Tensor = (2 * sums.square()) @ (layers.alike * size).mT
    return together


def _handed_on(layers: Layers, cuts: Cuts) -> torch.Tensor:
    """Sum of the squares of what has come together at each cut, from the last inputs on."""
    sums, squares = torch.zeros_like(layers.output), torch.zeros_like(layers.output)
    end = layers.x.shape[2]
    for index in reversed(range(len(cuts.places))):
        part = slice(cuts.places[index], end)
        sums.baddbmm_(layers.x[:, :, part], layers.weight[:, :, part].mT)
        squares.addcmul_(sums, sums * cuts.here[index].repeat_interleave(cuts.width, dim=1))
        end = part.start
    return squares


def judge(compared: Compared) -> list[tuple[str, float | None]]:
    """Of each layer, where the error is more than roundings make it, and how many times as much.

    ``""``: nowhere. ``None``: not finite, which is as far beyond as anything can be; or of no token.

    A fault in one place is lost in the mean of all: tokens, outputs, tiles and single values are looked at too. The
    device is waited for once: there are hundreds of layers.
    """
    error, allowed = compared.error, compared.allowed
    count, tokens, outputs = error.shape
    if not tokens:
        return [("", None)] * count
    ratio = (error / allowed.clamp_min(torch.finfo(torch.float32).tiny)).square_()
    tile = min(_TILE, tokens), min(_TILE, outputs)
    views = (
        ("everywhere", ratio.mean((1, 2)), tokens * outputs),
        ("in a token", ratio.mean(2).amax(1), outputs),
        ("in an output", ratio.mean(1).amax(1), 1),  # its weights are rounded once, for all tokens
        ("in a tile", functional.avg_pool2d(ratio, tile).amax((1, 2)), tile[1]),
        ("in a value", ratio.amax((1, 2)), 1),
    )
    along = [("in proportion", _along(compared, compared.product))]
    if compared.bias is not None:
        along.append(("with the bias", _along(compared, compared.bias.unsqueeze(1))))
    # NaN and infinity are in a maximum norm as they are in any value.
    largest = [torch.linalg.vector_norm(each, math.inf, dim=(1, 2)) for each in (error, allowed)]
    columns = [*largest, *(mean for _, mean, _ in views), *(excess for _, excess in along)]
    told: list[tuple[str, float | None]] = []
    for row in torch.stack(columns, dim=1).tolist():
        if not math.isfinite(row[0] + row[1]):
            told.append(("not finite", None))
            continue
        most = [(math.sqrt(mean) / _most(many), name) for mean, (name, _, many) in zip(row[2:], views, strict=False)]
        most += [(excess, name) for excess, (name, _) in zip(row[2 + len(views) :], along, strict=True)]
        beyond = [(excess, name) for excess, name in most if not excess <= 1]  # NaN is beyond
        told.append((beyond[0][1], _number(beyond[0][0])) if beyond else ("", max(most)[0]))
    return told


def _along(compared: Compared, direction: torch.Tensor) -> torch.Tensor:
    """A small factor on everything is seen in the sum over all outputs, where their roundings cancel.

    Those of one output need not cancel over tokens: all have the same weights. Nor need those of the scales cancel over
    outputs: of eight bits, many are rounded alike, at most by half a unit. ``[layers]``.
    """
    scatter: torch.Tensor = torch.linalg.vector_norm((compared.allowed * direction.abs()).sum(1), dim=1)
    alike = compared.unit * (compared.product * direction).sum((1, 2)).abs()
    most = (_SIGMAS * scatter + alike).clamp_min(1e-30)
    found: torch.Tensor = (compared.error * direction).sum((1, 2)).abs() / most
    return found


def _most(count: int) -> float:
    """Of so many roundings, their root mean square in units of the expected one."""
    return 1 + _SIGMAS / math.sqrt(2 * count)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

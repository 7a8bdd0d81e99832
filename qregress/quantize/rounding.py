"""What roundings may do to a product, and whether an error is more than that.

The bound follows from the dtype and the number of terms, value by value: no figure of an earlier run is in it.
"""

from __future__ import annotations

import math

import msgspec
import torch
from torch.nn import functional

from qregress.quantize.structure import Compared

#: Rounding errors are a sum of many: single ones are larger than their root mean square, the more so the fewer are
#: averaged. Of a patch of n, this over the root of 2 n is allowed on top.
_SIGMAS = 5.0
_SUM = torch.finfo(torch.float32).eps / 2  # kernels sum in float32
_TILE = 16


class Layer(msgspec.Struct, frozen=True):
    """A layer's call as a product: ``x [tokens, inputs]``, ``weight [outputs, inputs]``, ``output [tokens, outputs]``.

    ``left_out``: tokens of the call that are not among them, see ``LayerFidelity``. The others as in ``Dequantized``.
    """

    x: torch.Tensor
    weight: torch.Tensor
    rounded: torch.Tensor
    group: int
    alike: torch.Tensor
    bias: torch.Tensor | None
    output: torch.Tensor
    left_out: int


def compared_with_exact(layer: Layer, dtype: torch.dtype, unit: float) -> Compared:
    """The error, and the root mean square that roundings may have, value by value.

    Of each of the terms of a product the weight is rounded (with what its format rounds on the way) and the product
    with its scale; the output before and after the bias. Values below the dtype's smallest normal one are rounded to a
    fixed grid. Float32 sums add half a unit for each of their terms.
    """
    info = torch.finfo(dtype)
    grid = info.smallest_normal * info.eps / 2
    square = layer.x.square()
    product = layer.x @ layer.weight.T
    expected = product if layer.bias is None else product + layer.bias
    terms = square @ (layer.rounded.square() + layer.weight.square()).T + _together(layer)
    allowed = unit**2 * (terms + product.square() + expected.square())
    allowed += grid**2 * (square.sum(1, keepdim=True) + 1)
    allowed += _SUM**2 * layer.weight.shape[1] * _partial_sums(layer, square)
    # What overflows in its dtype is the model's doing, not the kernel's.
    overflow = expected.abs() > info.max
    error = (layer.output - expected).masked_fill(overflow, 0.0)
    return Compared(
        error=error,
        expected=expected.masked_fill(overflow, 0.0),
        product=product.masked_fill(overflow, 0.0),
        bias=layer.bias,
        allowed=(allowed / 3).sqrt(),
        unit=unit,
    )


def _partial_sums(layer: Layer, square: torch.Tensor) -> torch.Tensor:
    """Mean square of what a sum may pass through on its way: as of a random walk, for which float32 has bits to spare.

    Where float32 is all that there is, as if all terms had one sign.
    """
    if layer.x.dtype == torch.float64:
        return (layer.x.abs() @ layer.weight.abs().T).square()
    return square @ layer.weight.square().T


def _together(layer: Layer) -> torch.Tensor:
    """What roundings of equal values add: those of one group and one level are the same rounding.

    Of inputs with a mean they do not cancel each other. Twice the chance of two equal values: inputs that are alike
    tend to have weights that are alike.
    """
    outputs, inputs = layer.weight.shape
    sums: torch.Tensor = layer.x.unflatten(1, (-1, layer.group)).sum(2)
    size = layer.rounded.reshape(outputs, inputs // layer.group, layer.group).square().mean(2)
    return 2 * sums.square() @ (layer.alike * size).T


def judge(compared: Compared) -> tuple[str, float | None]:
    """Where the error is more than roundings make it, and how many times as much; ``""`` where it is nowhere.

    ``None``: not finite, which is as far beyond as anything can be; or of no token.

    A fault in one place is lost in the mean of all: tokens, outputs, tiles and single values are looked at too.
    """
    if not len(compared.error):
        return "", None
    if not (compared.error.isfinite().all() and compared.allowed.isfinite().all()):
        return "not finite", None
    ratio = (compared.error / compared.allowed.clamp_min(torch.finfo(torch.float32).tiny)).square()
    tokens, outputs = ratio.shape
    tile = min(_TILE, tokens), min(_TILE, outputs)
    views = (
        ("everywhere", ratio.mean(), ratio.numel()),
        ("in a token", ratio.mean(1).max(), outputs),
        ("in an output", ratio.mean(0).max(), 1),  # its weights are rounded once, for all tokens
        ("in a tile", functional.avg_pool2d(ratio[None, None], tile).max(), tile[1]),
        ("in a value", ratio.max(), 1),
    )
    most = [(float(mean.sqrt()) / _most(count), name) for name, mean, count in views]
    most += [(_along(compared, compared.product), "in proportion"), (_along(compared, compared.bias), "with the bias")]
    beyond = [(excess, name) for excess, name in most if not excess <= 1]  # NaN is beyond
    return (beyond[0][1], _number(beyond[0][0])) if beyond else ("", max(most)[0])


def _along(compared: Compared, direction: torch.Tensor | None) -> float:
    """A small factor on everything is seen in the sum over all outputs, where their roundings cancel.

    Those of one output need not cancel over tokens: all have the same weights. Nor need those of the scales cancel over
    outputs: of eight bits, many are rounded alike, at most by half a unit.
    """
    if direction is None:
        return 0.0
    along = direction.expand_as(compared.error)
    scatter = (compared.allowed * along.abs()).sum(0).square().sum().sqrt()
    alike = compared.unit * (compared.product * along).sum().abs()
    return float((compared.error * along).sum().abs() / (_SIGMAS * scatter + alike).clamp_min(1e-30))


def _most(count: int) -> float:
    """Of so many roundings, their root mean square in units of the expected one."""
    return 1 + _SIGMAS / math.sqrt(2 * count)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""What the error of a wrong kernel looks like: the structure says where to look in its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import msgspec
import torch

#: Of the error's energy, what a structure must explain to be named.
_EXPLAINS = 0.8
#: A coefficient so near to 1 is taken for it.
_NEAR = 0.1
#: Fewest tokens for each coefficient that is fitted over them: with fewer, anything fits.
_TOKENS_EACH = 4
#: Tokens and outputs over which factors are fitted: over all those of a large layer it takes minutes and gigabytes.
_TOKENS, _OUTPUTS = 256, 32
_SMALL = 0.3  # of all values, what a tile may be at most
_ROUNDINGS = 3.0  # of single values, how many times the expected one is taken for a rounding


class Kind(msgspec.Struct, frozen=True):
    """Words for a structure: what is alike in all layers that one fault is in, and what differs, if anything."""

    name: str
    detail: str = ""


NO_BIAS = Kind("constant over tokens, minus the bias: it is not added")


class Compared(msgspec.Struct, frozen=True):
    """Outputs of layers of one shape, all ``[layers, tokens, outputs]`` but ``bias``, ``[layers, outputs]``.

    ``error``: against ``expected``, the exact ``product`` with the bias added; ``allowed``: the root mean square that
    roundings may have; ``unit``: half a unit in the last place, relative.
    """

    error: torch.Tensor
    expected: torch.Tensor
    product: torch.Tensor
    bias: torch.Tensor | None
    allowed: torch.Tensor
    unit: float

    def of(self, layer: int) -> Compared:
        """One of the layers, without the first dimension."""
        return Compared(
            error=self.error[layer],
            expected=self.expected[layer],
            product=self.product[layer],
            bias=self.bias[layer] if self.bias is not None else None,
            allowed=self.allowed[layer],
            unit=self.unit,
        )


class _Case(msgspec.Struct, frozen=True):
    """``energy``: of the error; ``beyond``: of what is more than roundings; ``group``: inputs that share a scale."""

    x: torch.Tensor
    weight: torch.Tensor
    error: torch.Tensor
    product: torch.Tensor
    energy: float
    beyond: torch.Tensor
    group: int


def of_bias(compared: Compared) -> list[Kind | None]:
    """Of each layer whose error is a multiple of its bias, the same for every token, words for that.

    The simplest structure, and told of all layers at once, for a kernel that adds no bias is wrong in hundreds of them.
    """
    if compared.bias is None:
        return [None] * len(compared.error)
    along = (compared.error.sum(1) * compared.bias).sum(1)
    norm = compared.bias.square().sum(1) * compared.error.shape[1]
    energy = torch.linalg.vector_norm(compared.error, dim=(1, 2)).square()
    factors = torch.where(norm > 0, along / norm, math.nan)  # no bias, or one whose squares are zero, explains nothing
    columns = torch.stack([factors, along * factors / energy], dim=1).tolist()  # NaN of errors that are not finite
    return [_of_bias(factor) if explained >= _EXPLAINS else None for factor, explained in columns]


def _of_bias(factor: float) -> Kind:
    if abs(factor + 1) < _NEAR:
        return NO_BIAS
    return Kind("constant over tokens, a multiple of the bias", f"{factor:+.2f} times")


def describe(x: torch.Tensor, weight: torch.Tensor, group: int, compared: Compared) -> Kind:
    """Words for the simplest structure but ``of_bias`` that explains one layer's error, projected on each in turn.

    ``x [tokens, inputs]``, ``weight [outputs, inputs]``, one scale for each ``group`` of an output's inputs.
    """
    finite = compared.error.isfinite()
    if not finite.all():
        return _where_not_finite(finite)
    square = compared.error.square()
    beyond = (square - (_ROUNDINGS * compared.allowed).square()).clamp_min(0)
    case = _Case(x, weight, compared.error, compared.product, float(square.sum()), beyond, group)
    for candidate in _CANDIDATES:
        kind = candidate(case)
        if kind is not None:
            return kind
    return Kind("without a structure that is known")


@lru_cache(maxsize=64)  # a denoiser has hundreds of layers that take the same tokens
def spread(count: int, most: int, device: torch.device) -> torch.Tensor:
    """So many places out of a number of them, evenly, or all; not to be changed."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.linspace(0, count - 1, most, device=device, dtype=torch.float64).round().long()


def _where_not_finite(finite: torch.Tensor) -> Kind:
    tokens, outputs = finite.shape
    bad = ~finite
    where = f"{int(bad.any(1).sum())} of {tokens} tokens, {int(bad.any(0).sum())} of {outputs} outputs"
    return Kind("not finite", where)


def _proportional(case: _Case) -> Kind | None:
    factor, explained = _project(case, case.product)
    return Kind("proportional to the output", f"{factor:+.2%}") if explained >= _EXPLAINS else None


def _one_output(case: _Case) -> Kind | None:
    return _one(case, 0, "output")


def _one_token(case: _Case) -> Kind | None:
    return _one(case, 1, "token")


def _one(case: _Case, over: int, name: str) -> Kind | None:
    """One column or row of the output."""
    shares = case.error.square().sum(over) / case.energy
    place = int(shares.argmax())
    if len(shares) == 1 or shares[place] < _EXPLAINS:
        return None
    error, product = (part.select(1 - over, place) for part in (case.error, case.product))
    factor = float((error * product).sum() / product.square().sum().clamp_min(1e-30))
    dropped = ": its product is dropped" if abs(factor + 1) < _NEAR else ""
    return Kind(f"one {name} only", f"{place} of {len(shares)}{dropped}")


def _constant(case: _Case) -> Kind | None:
    """Where products differ from token to token: else everything is constant."""
    if len(case.error) < _TOKENS_EACH or _constancy(case.product) > 1 - _EXPLAINS / 2:
        return None
    return Kind("constant over tokens") if _constancy(case.error) >= _EXPLAINS else None


def _constancy(part: torch.Tensor) -> float:
    return float(len(part) * part.mean(0).square().sum() / part.square().sum().clamp_min(1e-30))


def _one_input(case: _Case) -> Kind | None:
    """The contribution of one input, left out or multiplied otherwise."""
    along = (case.x * (case.error @ case.weight)).sum(0)
    norms = (case.x.square().sum(0) * case.weight.square().sum(0)).clamp_min(1e-30)
    explained = along.square() / norms / case.energy
    place = int(explained.argmax())
    if explained[place] < _EXPLAINS:
        return None
    factor = float(along[place] / norms[place])
    dropped = ": it is left out" if abs(factor + 1) < _NEAR else f", {factor:+.2%}"
    return Kind("one input only", f"{place} of {len(norms)}{dropped}")


def _tile(case: _Case) -> Kind | None:
    """A rectangle of the output, outside of which there are roundings only."""
    total = case.beyond.sum()
    if not total:
        return None
    rows, columns = _range(case.beyond.sum(1)), _range(case.beyond.sum(0))
    area = (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1) / case.beyond.numel()
    inside = case.beyond[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1].sum() / total
    if area > _SMALL or inside < _EXPLAINS:
        return None
    return Kind("one tile only", f"tokens {rows[0]} to {rows[1]} and outputs {columns[0]} to {columns[1]}")


def _range(energy: torch.Tensor) -> tuple[int, int]:
    """First and last place between which nearly all of it lies."""
    along = energy.cumsum(0) / energy.sum()
    edge = (1 - _EXPLAINS) / 8
    return int((along > edge).nonzero()[0]), int((along >= 1 - edge).nonzero()[0])


def _each_output(case: _Case) -> Kind | None:
    """Factors on the product, and on a shift, which multiplies the sum of inputs."""
    few = _few(case, 2)
    basis = [few.product, few.x.sum(1, keepdim=True).expand_as(few.error)]
    return Kind("by a factor of its own in each output: its scales") if _explains(few, basis) else None


def _each_token(case: _Case) -> Kind | None:
    """Factors on the product that differ from token to token."""
    if case.error.shape[1] < _TOKENS_EACH:
        return None
    along = (case.error * case.product).sum(1)
    explained = float((along.square() / case.product.square().sum(1).clamp_min(1e-30)).sum() / case.energy)
    return Kind("by a factor of its own in each token: the scales of activations") if explained >= _EXPLAINS else None


def _groups(case: _Case) -> Kind | None:
    """The same of groups of inputs: of one group, or of all of them."""
    inputs, size = case.x.shape[1], case.group
    starts = range(0, inputs, size)
    if len(starts) < 2:  # noqa: PLR2004 - one group is the whole output
        return None
    few = _few(case, 2)
    for start in starts:
        if _explains(few, _part(few, start, size)):
            return Kind("one group of inputs only", f"{start} to {start + size - 1}: its scales")
    few = _few(case, 2 * len(starts))
    if _explains(few, [each for start in starts for each in _part(few, start, size)]):
        return Kind(f"by a factor of its own in each group of {size} inputs: scales of other groups")
    return None


def _few(case: _Case, coefficients: int) -> _Case:
    """As many tokens as so many coefficients need, evenly spread, and the outputs with most of the error."""
    tokens = spread(len(case.error), max(_TOKENS, _TOKENS_EACH * coefficients), case.error.device)
    outputs = case.error.square().sum(0).topk(min(_OUTPUTS, case.error.shape[1])).indices
    error, product, beyond = (part[tokens][:, outputs] for part in (case.error, case.product, case.beyond))
    return _Case(
        x=case.x[tokens],
        weight=case.weight[outputs],
        error=error,
        product=product,
        energy=float(error.square().sum()),
        beyond=beyond,
        group=case.group,
    )


def _part(case: _Case, start: int, size: int) -> list[torch.Tensor]:
    """What a group of inputs adds to the product, and what a shift of its weights would."""
    x = case.x[:, start : start + size]
    return [x @ case.weight[:, start : start + size].T, x.sum(1, keepdim=True).expand_as(case.error)]


def _explains(case: _Case, basis: list[torch.Tensor]) -> bool:
    """Whether multiples of these, fitted for each output over its tokens, are most of the error."""
    if len(case.x) < _TOKENS_EACH * len(basis) or case.energy == 0:
        return False
    stacked = torch.stack(basis, dim=-1).permute(1, 0, 2).double().cpu()  # [outputs, tokens, basis]
    target = case.error.T.unsqueeze(-1).double().cpu()
    fitted = stacked @ torch.linalg.lstsq(stacked, target, driver="gelsd").solution
    return 1 - float((target - fitted).square().sum()) / case.energy >= _EXPLAINS


def _project(case: _Case, on: torch.Tensor) -> tuple[float, float]:
    """The factor of a multiple of something, and what that explains of the error."""
    norm = float(on.square().sum())
    along = float((case.error * on).sum())
    return (along / norm, along**2 / norm / case.energy) if norm > 0 else (0.0, 0.0)


#: The simplest first.
_CANDIDATES: tuple[Callable[[_Case], Kind | None], ...] = (
    _proportional,
    _one_output,
    _one_token,
    _one_input,
    _constant,
    _each_output,
    _each_token,
    _groups,
    _tile,
)

"""What the error of a wrong kernel looks like: the structure says where to look in its source."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import torch

#: Of the error's energy, what a structure must explain to be named.
_EXPLAINS = 0.8
#: A coefficient so near to 1 is taken for it.
_NEAR = 0.1
#: Fewest tokens for each coefficient that is fitted over them: with fewer, anything fits.
_TOKENS_EACH = 4
_SMALL = 0.3  # of all values, what a tile may be at most
_ROUNDINGS = 3.0  # of single values, how many times the expected one is taken for a rounding


class Compared(msgspec.Struct, frozen=True):
    """A layer's output, all ``[tokens, outputs]`` but ``bias``, ``[outputs]``.

    ``error``: against ``expected``, the exact ``product`` with the bias added; ``allowed``: the root mean square that
    roundings may have; ``unit``: half a unit in the last place, relative.
    """

    error: torch.Tensor
    expected: torch.Tensor
    product: torch.Tensor
    bias: torch.Tensor | None
    allowed: torch.Tensor
    unit: float


class _Case(msgspec.Struct, frozen=True):
    """``energy``: of the error; ``beyond``: of what is more than roundings; ``group``: inputs that share a scale."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    error: torch.Tensor
    product: torch.Tensor
    energy: float
    beyond: torch.Tensor
    group: int


def describe(x: torch.Tensor, weight: torch.Tensor, group: int, compared: Compared) -> str:
    """Words for the simplest structure that explains the error, by projecting it on each in turn.

    ``x [tokens, inputs]``, ``weight [outputs, inputs]``, one scale for each ``group`` of an output's inputs.
    """
    finite = compared.error.isfinite()
    if not finite.all():
        return _where_not_finite(finite)
    square = compared.error.square()
    beyond = (square - (_ROUNDINGS * compared.allowed).square()).clamp_min(0)
    case = _Case(x, weight, compared.bias, compared.error, compared.product, float(square.sum()), beyond, group)
    for candidate in _CANDIDATES:
        words = candidate(case)
        if words is not None:
            return words
    return "without a structure that is known"


def _where_not_finite(finite: torch.Tensor) -> str:
    tokens, outputs = finite.shape
    bad = ~finite
    return f"not finite: {int(bad.any(1).sum())} of {tokens} tokens, {int(bad.any(0).sum())} of {outputs} outputs"


def _bias(case: _Case) -> str | None:
    """A multiple of the bias, the same for every token."""
    if case.bias is None or not bool(case.bias.any()):
        return None
    factor, explained = _project(case, case.bias.expand_as(case.error))
    if explained < _EXPLAINS:
        return None
    constant = "constant over tokens"
    if abs(factor + 1) < _NEAR:
        return f"{constant}, minus the bias: it is not added"
    return f"{constant}, {factor:+.2f} times the bias"


def _proportional(case: _Case) -> str | None:
    factor, explained = _project(case, case.product)
    return f"proportional to the output, {factor:+.2%}" if explained >= _EXPLAINS else None


def _one_output(case: _Case) -> str | None:
    return _one(case, 0, "output")


def _one_token(case: _Case) -> str | None:
    return _one(case, 1, "token")


def _one(case: _Case, over: int, name: str) -> str | None:
    """One column or row of the output."""
    shares = case.error.square().sum(over) / case.energy
    place = int(shares.argmax())
    if len(shares) == 1 or shares[place] < _EXPLAINS:
        return None
    error, product = (part.select(1 - over, place) for part in (case.error, case.product))
    factor = float((error * product).sum() / product.square().sum().clamp_min(1e-30))
    dropped = ": its product is dropped" if abs(factor + 1) < _NEAR else ""
    return f"one {name} only, {place} of {len(shares)}{dropped}"


def _constant(case: _Case) -> str | None:
    """Where products differ from token to token: else everything is constant."""
    if len(case.error) < _TOKENS_EACH or _constancy(case.product) > 1 - _EXPLAINS / 2:
        return None
    return "constant over tokens" if _constancy(case.error) >= _EXPLAINS else None


def _constancy(part: torch.Tensor) -> float:
    return float(len(part) * part.mean(0).square().sum() / part.square().sum().clamp_min(1e-30))


def _one_input(case: _Case) -> str | None:
    """The contribution of one input, left out or multiplied otherwise."""
    along = (case.x * (case.error @ case.weight)).sum(0)
    norms = (case.x.square().sum(0) * case.weight.square().sum(0)).clamp_min(1e-30)
    explained = along.square() / norms / case.energy
    place = int(explained.argmax())
    if explained[place] < _EXPLAINS:
        return None
    factor = float(along[place] / norms[place])
    dropped = ": it is left out" if abs(factor + 1) < _NEAR else f", {factor:+.2%}"
    return f"one input only, {place} of {len(norms)}{dropped}"


def _tile(case: _Case) -> str | None:
    """A rectangle of the output, outside of which there are roundings only."""
    total = case.beyond.sum()
    if not total:
        return None
    rows, columns = _range(case.beyond.sum(1)), _range(case.beyond.sum(0))
    area = (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1) / case.beyond.numel()
    inside = case.beyond[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1].sum() / total
    if area > _SMALL or inside < _EXPLAINS:
        return None
    return f"one tile only, tokens {rows[0]} to {rows[1]} and outputs {columns[0]} to {columns[1]}"


def _range(energy: torch.Tensor) -> tuple[int, int]:
    """First and last place between which nearly all of it lies."""
    along = energy.cumsum(0) / energy.sum()
    edge = (1 - _EXPLAINS) / 8
    return int((along > edge).nonzero()[0]), int((along >= 1 - edge).nonzero()[0])


def _each_output(case: _Case) -> str | None:
    """Factors on the product, and on a shift, which multiplies the sum of inputs."""
    basis = [case.product, case.x.sum(1, keepdim=True).expand_as(case.error)]
    return "by a factor of its own in each output: its scales" if _explains(case, basis) else None


def _each_token(case: _Case) -> str | None:
    """Factors on the product that differ from token to token."""
    if case.error.shape[1] < _TOKENS_EACH:
        return None
    along = (case.error * case.product).sum(1)
    explained = float((along.square() / case.product.square().sum(1).clamp_min(1e-30)).sum() / case.energy)
    return "by a factor of its own in each token: the scales of activations" if explained >= _EXPLAINS else None


def _groups(case: _Case) -> str | None:
    """The same of groups of inputs: of one group, or of all of them."""
    inputs, size = case.x.shape[1], case.group
    starts = range(0, inputs, size)
    if len(starts) < 2:  # noqa: PLR2004 - one group is the whole output
        return None
    parts = [_part(case, start, size) for start in starts]
    for start, part in zip(starts, parts, strict=True):
        if _explains(case, part):
            return f"one group of inputs only, {start} to {start + size - 1}: its scales"
    if _explains(case, [each for part in parts for each in part]):
        return f"by a factor of its own in each group of {size} inputs: scales of other groups"
    return None


def _part(case: _Case, start: int, size: int) -> list[torch.Tensor]:
    """What a group of inputs adds to the product, and what a shift of its weights would."""
    x = case.x[:, start : start + size]
    return [x @ case.weight[:, start : start + size].T, x.sum(1, keepdim=True).expand_as(case.error)]


def _explains(case: _Case, basis: list[torch.Tensor]) -> bool:
    """Whether multiples of these, fitted for each output over its tokens, are most of the error."""
    if len(case.x) < _TOKENS_EACH * len(basis):
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
_CANDIDATES: tuple[Callable[[_Case], str | None], ...] = (
    _bias,
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

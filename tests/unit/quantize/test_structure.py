"""What the error of a kernel looks like, at the sizes of layers that are in use."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qregress.quantize.structure import Compared, Kind, describe

#: Of FLUX's feed-forward network: tokens of an image of 1024 x 1024 with its prompt, and inputs; outputs fewer than its
#: 3072, so that the example is made in little time.
TOKENS, INPUTS, OUTPUTS, GROUP = 4608, 12288, 64, 128
#: Most values that a fit may work on: 32 outputs, 4 tokens for each of 2 coefficients of 96 groups.
MOST = 32 * (4 * 2 * 96) * (2 * 96)


@pytest.fixture(scope="module")
def layer() -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded inputs and weight."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, INPUTS, generator=draw)
    return x, torch.randn(OUTPUTS, INPUTS, generator=draw)


def described(layer: tuple[torch.Tensor, torch.Tensor], error: torch.Tensor) -> Kind:
    """An error beside which the roundings are nothing."""
    x, weight = layer
    product = x @ weight.T
    allowed = torch.full_like(product, 1e-3)
    return describe(
        x,
        weight,
        GROUP,
        Compared(error=error, expected=product, product=product, bias=None, allowed=allowed, unit=1e-3),
    )


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Values that each fit works on."""
    found: list[int] = []
    fit = torch.linalg.lstsq

    def counted(stacked: torch.Tensor, *rest: Any, **options: Any) -> Any:
        found.append(stacked.numel())
        assert stacked.numel() <= MOST
        return fit(stacked, *rest, **options)

    monkeypatch.setattr(torch.linalg, "lstsq", counted)
    return found


def test_an_error_without_structure_in_a_large_layer(
    layer: tuple[torch.Tensor, torch.Tensor], sizes: list[int]
) -> None:
    """Given noise, on which every structure is tried, then no fit takes more than a few dozen outputs and tokens."""
    noise = torch.randn(TOKENS, OUTPUTS, generator=torch.Generator().manual_seed(1))
    assert described(layer, noise) == Kind("without a structure that is known")
    assert (len(sizes), max(sizes)) == (1 + INPUTS // GROUP + 1, MOST)


@pytest.mark.parametrize(
    ("groups", "kind"),
    [
        ([7], Kind("one group of inputs only", "896 to 1023: its scales")),
        (range(96), Kind("by a factor of its own in each group of 128 inputs: scales of other groups")),
    ],
)
def test_scales_of_groups_in_a_large_layer(
    groups: Any, kind: Kind, layer: tuple[torch.Tensor, torch.Tensor], sizes: list[int]
) -> None:
    """Given wrong scales of one group or of all, then they are told from as few outputs and tokens."""
    x, weight = layer
    factors = torch.zeros(OUTPUTS, INPUTS // GROUP)
    factors[:, list(groups)] = torch.randn(OUTPUTS, len(groups), generator=torch.Generator().manual_seed(2))
    wrong = (weight.unflatten(1, (-1, GROUP)) * factors[:, :, None]).flatten(1)
    assert described(layer, x @ wrong.T) == kind
    assert sizes

"""What is said of layers that are judged together, and of errors that are along their bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import nn

from qregress.quantize import fidelity, layer_call, load_backend
from qregress.quantize.base import Spec
from qregress.quantize.fidelity import Pending
from qregress.quantize.quanto import apply
from qregress.record import LayerFidelity
from tests.kernels import activations, break_layer, compared, layer, not_a_number


def test_a_multiple_of_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a kernel that adds half of the bias too much, then that is told, once values have been looked at again."""
    again: list[int] = []
    look = layer_call._again

    def watched(calls: Any, layers: Any, doubtful: Sequence[int], told: Any) -> Any:
        again.extend(doubtful)
        return look(calls, layers, doubtful, told)

    monkeypatch.setattr(layer_call, "_again", watched)
    x = activations(256, torch.bfloat16)
    found = compared(layer("int8", torch.bfloat16), x, lambda linear, _, y: y + 0.5 * linear.bias)
    assert (found.kind, found.detail) == ("constant over tokens, a multiple of the bias", "+0.50 times")
    assert again == [0]
    found = compared(layer("int8", torch.bfloat16), x, lambda linear, _, y: y - linear.bias)
    assert found.kind == "constant over tokens, minus the bias: it is not added"
    assert again == [0]


def test_a_bias_whose_squares_are_zero() -> None:
    """Given a bias of 1e-25 and a product that is off by 1 %, then it is no infinite multiple of that bias."""
    model = layer("int8", torch.bfloat16)
    nn.init.constant_(cast("nn.Linear", model[0]).bias, 1e-25)
    found = compared(model, activations(256, torch.bfloat16), lambda _, __, y: y * 1.01)
    assert found.kind == "proportional to the output"


def test_roundings_along_the_bias() -> None:
    """Given few outputs whose roundings add up to the bias, subtracted, then a sound kernel is not told to lack it."""
    scale = torch.tensor(0.0123).half().float()
    codes = torch.arange(-126, 127).float()
    off = (codes * scale).half().float() - codes * scale
    same_way = codes[off.argsort(descending=True)[:60]]  # that float16 rounds up most
    draw = torch.Generator().manual_seed(0)
    weight = same_way[torch.randint(len(same_way), (8, 1024), generator=draw)] * scale
    weight[:, 0] = 127 * scale
    x = (torch.rand(1, 1024, generator=draw).half() + 0.5).repeat(4, 1)

    def rounding_of(bias: torch.Tensor) -> tuple[torch.Tensor, LayerFidelity]:
        linear = nn.Linear(1024, 8).half()
        model = nn.Sequential(linear)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
            apply(model, Spec(weights="int8"))
            exact = x.float() @ load_backend("quanto").dequantize(model[0]).values.T + bias
            return (model(x).float() - exact).mean(0), compared(model, x)

    error, without = rounding_of(torch.zeros(8))
    _, along = rounding_of(-error)
    assert (without.where, along.where) == ("", "")
    assert along.excess is not None
    assert along.excess < 0.5  # by the values as float16 has them


@pytest.mark.parametrize("together", [0, 2**20, 2**28], ids=["one by one", "some", "all"])
def test_layers_that_are_judged_together_are_told_apart(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    """Given eight layers of one shape, half of them wrong, then those are named, each with its own error."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(128, 128) for _ in range(8))).half()
    apply(model, Spec(weights="int8"))
    break_layer(model[2], lambda _, __, output: output * 1.5)
    break_layer(model[4], not_a_number)
    break_layer(model[6], lambda _, __, output: output * 1.004)  # so little that it is looked at again
    break_layer(model[7], lambda linear, __, output: output - linear.bias)
    monkeypatch.setattr(fidelity, "_LEAST_BYTES", together)
    x = activations(128, torch.float16, 200)

    def run(_: Pending) -> None:
        with torch.no_grad():
            for layer in model:
                layer(x)

    found = fidelity.examine({"model": model}, {"model": nn.Module()}, load_backend("quanto"), run)["model"].layers
    assert [each.name for each in found] == [str(place) for place in range(8)]
    assert [bool(each.where) for each in found] == [False, False, True, False, True, False, True, True]
    assert (found[2].kind, str(found[2].detail)[:3]) == ("proportional to the output", "+50")
    assert found[4].where == "not finite"
    assert (found[6].kind, str(found[6].detail)[:4]) == ("proportional to the output", "+0.4")
    assert found[7].kind == "constant over tokens, minus the bias: it is not added"
    alone = [compared(nn.Sequential(model[place]), x) for place in range(8)]
    for name in ("error", "bound", "excess"):
        expected = [getattr(each, name) for each in alone if each.where != "not finite"]
        assert [getattr(each, name) for each in found if each.where != "not finite"] == pytest.approx(
            expected, rel=1e-3
        )
    assert len({each.error for each in found}) == 8

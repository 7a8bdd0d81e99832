"""Kernels that multiply wrongly, each told by its structure; sound ones pass in every dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from msgspec import UNSET
from torch import nn

from qregress.quantize import fidelity, load_backend
from qregress.quantize.base import Spec
from qregress.quantize.fidelity import Pending
from qregress.quantize.quanto import apply
from qregress.record import LayerFidelity, decode, encode
from tests.kernels import TOKENS, Fault, activations, compared, layer, not_a_number
from tests.quantizing import distance

HALF = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32], ids=str)
@pytest.mark.parametrize("weights", ["float8", "float8_e5m2", "int8", "int4", "int2"])
@pytest.mark.parametrize(("inputs", "tokens"), [(64, 2), (256, 64), (1024, 7)])
def test_sound_kernels_pass(weights: str, dtype: torch.dtype, inputs: int, tokens: int) -> None:
    """Given quanto's own kernels, then the error is what rounding allows, wherever one looks."""
    found = compared(layer(weights, dtype, inputs), activations(inputs, dtype, tokens))
    assert (found.where, found.kind) == ("", "")
    assert found.excess is not None
    assert found.excess <= 1


@pytest.mark.parametrize(("dtype", "least", "most"), [(torch.float16, 2e-4, 6e-4), (torch.bfloat16, 1.6e-3, 4.8e-3)])
def test_the_bound_is_the_dtypes_rounding(dtype: torch.dtype, least: float, most: float) -> None:
    """Given int8, then the bound is near half a unit in the last place, and does not depend on what was measured."""
    found = compared(layer("int8", dtype), activations(256, dtype))
    assert found.bound is not None
    assert least < found.bound < most
    wrong = compared(layer("int8", dtype), activations(256, dtype), lambda _, __, y: y * 1.5)
    assert wrong.bound == pytest.approx(found.bound, rel=1e-3)


def test_quantization_error_is_told_apart() -> None:
    """Given int2 beside int8, then the loss of quantization is a hundred times as large, and the kernel as right."""
    losses = []
    for weights in ("int8", "int2"):
        torch.manual_seed(0)
        original = nn.Sequential(nn.Linear(256, 192)).half()
        model = layer(weights, torch.float16)
        x = activations(256, torch.half)
        found = fidelity.examine({"model": model}, {"model": original}, load_backend("quanto"), lambda _: model(x))  # noqa: B023
        (only,) = found["model"].layers
        assert not only.where
        assert only.loss is not None
        losses.append(only.loss)
    assert losses[0] < 0.01
    assert losses[1] > 50 * losses[0]


def _bias_forgotten(module: nn.Linear, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y - module.bias


def _one_percent(module: nn.Linear, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (y - module.bias) * 1.01 + module.bias


def _dropped_output(module: nn.Linear, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    changed = y.clone()
    changed[:, 17] = module.bias[17]
    return changed


def _dropped_token(module: nn.Linear, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    changed = y.clone()
    changed[5] = module.bias
    return changed


def _dropped_input(module: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y - (x[:, 40:41].float() @ module.weight.dequantize()[:, 40:41].float().T).to(y.dtype)


def _wrong_tile(_: nn.Linear, __: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    changed = y.clone()
    changed[16:32, 64:80] *= 1.05
    return changed


def _constant(_: nn.Linear, __: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y + torch.linspace(-0.1, 0.1, y.shape[1]).to(y.dtype)


def _scales_of_the_next_output(module: Any, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    weight = module.weight.dequantize().float()
    scale = module.weight._scale.float()
    product: torch.Tensor = (x.float() @ (weight * scale.roll(1, 0) / scale).T).to(x.dtype) + module.bias
    return product


def _another_groups_scale(module: Any, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    weight = module.weight.weight_qbits_tensor() if hasattr(module.weight, "_scale_shift") else module.weight
    values, scale = weight.dequantize().float(), weight._scale.float().reshape(len(weight), -1)
    wrong = values.clone()
    wrong[:, 128:] *= (scale[:, 0] / scale[:, 1])[:, None]
    product: torch.Tensor = (x.float() @ wrong.T).to(x.dtype) + module.bias
    return product


def _sums_in_float16(module: nn.Linear, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    weight = module.weight.dequantize()
    total = torch.zeros(len(x), len(weight), dtype=x.dtype)
    for k in range(x.shape[1]):
        total += x[:, k : k + 1] * weight[:, k]
    return total + module.bias


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(
    ("fault", "weights", "words"),
    [
        (_bias_forgotten, "int8", "constant over tokens, minus the bias: it is not added"),
        (_one_percent, "int8", "proportional to the output, +"),
        (_dropped_output, "int8", "one output only, 17 of 192: its product is dropped"),
        (_dropped_token, "int8", "one token only, 5 of 64: its product is dropped"),
        (_dropped_input, "int8", "one input only, 40 of 256: it is left out"),
        (_wrong_tile, "int8", "one tile only, tokens 16 to 31 and outputs 64 to 79"),
        (_constant, "int8", "constant over tokens"),
        (_scales_of_the_next_output, "int8", "by a factor of its own in each output: its scales"),
        (_another_groups_scale, "int4", "one group of inputs only, 128 to 255: its scales"),
        (not_a_number, "int8", "not finite, 1 of 64 tokens, 192 of 192 outputs"),
    ],
)
def test_a_wrong_kernel_is_told_by_its_structure(fault: Fault, weights: str, words: str, dtype: torch.dtype) -> None:
    """Given a kernel with one fault, then the layer is beyond what rounding allows, and the words say which it is."""
    found = compared(layer(weights, dtype), activations(256, dtype), fault)
    assert found.where
    assert ", ".join(filter(None, (found.kind, found.detail or ""))).startswith(words)
    assert found.excess is None or found.excess > 1


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.float16, math.inf),
        (torch.float16, math.nan),
        (torch.bfloat16, -math.inf),
        (torch.bfloat16, 1e25),
        (torch.float32, math.inf),
        (torch.float32, math.nan),
    ],
    ids=str,
)
def test_inputs_that_say_nothing_of_a_kernel(dtype: torch.dtype, value: float) -> None:
    """Given one input that is not finite, or too large to be squared, then its token is left out, the others judged."""
    x = activations(256, dtype)
    x[5, 7] = value
    found = compared(layer("int8", dtype), x)
    assert (found.where, found.tokens, found.left_out) == ("", TOKENS - 1, 1)
    assert decode(encode(found), LayerFidelity) == found
    assert found.excess is not None
    assert 0 < found.excess <= 1
    wrong = compared(layer("int8", dtype), x, _bias_forgotten)
    assert wrong.kind == "constant over tokens, minus the bias: it is not added"


def test_one_of_several_layers_with_an_input_that_says_nothing() -> None:
    """Given layers of one shape of which one has an infinite input, then it alone has fewer tokens."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(128, 128) for _ in range(4))).half()
    apply(model, Spec(weights="int8"))
    x = activations(128, torch.float16)
    infinite = x.clone()
    infinite[3, 3] = math.inf

    def run(_: Pending) -> None:
        with torch.no_grad():
            for place, each in enumerate(model):
                each(infinite if place == 2 else x)

    found = fidelity.examine({"model": model}, {"model": nn.Module()}, load_backend("quanto"), run)["model"].layers
    assert [(each.tokens, each.left_out) for each in found] == [
        (TOKENS, UNSET),
        (TOKENS, UNSET),
        (TOKENS - 1, 1),
        (TOKENS, UNSET),
    ]
    assert not any(each.where for each in found)


def test_no_finite_input_at_all() -> None:
    """Given inputs of NaN, then no kernel is blamed, and no error is told: not even one of zero."""
    found = compared(layer("int8", torch.float16), torch.full((TOKENS, 256), math.nan).half())
    assert (found.where, found.tokens, found.left_out) == ("", 0, TOKENS)
    assert (found.error, found.bound, found.excess) == (None, None, None)
    assert decode(encode(found), LayerFidelity) == found


def test_outputs_that_are_no_number() -> None:
    """Given finite inputs and an output of NaN, then the error is none, not zero, and a file holds it."""
    found = compared(layer("int8", torch.float16), activations(256, torch.float16), not_a_number)
    assert (found.where, found.error, found.excess) == ("not finite", None, None)
    assert decode(encode(found), LayerFidelity) == found


def test_sums_in_the_compute_dtype_are_too_much() -> None:
    """Given a kernel that sums a thousand terms in float16, then it is beyond what sums in float32 may lose."""
    found = compared(layer("int8", torch.float16, 1024), activations(1024, torch.float16), _sums_in_float16)
    assert found.where == "everywhere"


def test_a_single_wrong_value_in_a_large_output() -> None:
    """Given one value of twelve thousand that is wrong by a tenth, which no mean shows, then it is found."""

    def fault(_: nn.Linear, __: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        changed = y.clone()
        place = int(changed[9].abs().argmax())
        changed[9, place] *= 1.1
        return changed

    found = compared(layer("int8", torch.float16), activations(256, torch.float16), fault)
    assert found.where
    assert found.error is not None
    assert found.error < 1e-2


@pytest.mark.parametrize(("free", "together"), [(2**30, 2**28), (2**33, 2**29), (2**36, 2**30)])
def test_more_is_judged_together_where_a_gpu_has_memory(
    free: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a GPU's free memory, a quarter of it in torch's cache, then a sixteenth is taken, within bounds."""
    assert fidelity._bytes_together([nn.Linear(2, 2)]) == 2**28
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * 3 // 4, 2**40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: free // 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: free // 4)
    module: Any = SimpleNamespace(parameters=lambda: [SimpleNamespace(is_cuda=True, device="cuda:0")])
    assert fidelity._bytes_together([module]) == together


def test_what_comes_between_layers_is_told_from_their_calls() -> None:
    """Given two layers of a call, then comparing begins after each of them, and has ended when the call goes on."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).half()
    apply(model, Spec(weights="int8"))
    told: list[str] = []

    @contextmanager
    def comparing() -> Iterator[None]:
        told.append("comparing")
        yield
        told.append("done")

    def run(_: Pending) -> None:
        model[0](activations(64, torch.half))
        told.append("between")
        model[1](activations(64, torch.half))

    backend = load_backend("quanto")
    fidelity.examine({"model": model}, {"model": nn.Module()}, backend, run, comparing)
    assert told == ["comparing", "done", "between", "comparing", "done"]


def test_a_layer_that_is_not_called_is_idle() -> None:
    """Given a quantized layer that no call uses, then it is named and nothing is said of its kernel."""
    model = nn.ModuleDict({"used": nn.Linear(64, 64), "idle": nn.Linear(64, 64)}).half()
    apply(model, Spec(weights="int8"))
    waited: list[set[tuple[str, str]]] = []

    def run(pending: Pending) -> None:
        waited.append(pending())
        model["used"](activations(64, torch.half))
        waited.append(pending())

    found = fidelity.examine(
        {"model": model},
        {"model": nn.Module()},
        load_backend("quanto"),
        run,
    )["model"]
    assert ([only.name for only in found.layers], found.idle) == (["used"], ("idle",))
    assert waited == [{("model", "used"), ("model", "idle")}, {("model", "idle")}]


def test_a_convolution_is_a_product_of_patches() -> None:
    """Given a strided convolution with padding, then it is compared, and one percent is seen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 32, 3, stride=2, padding=1)).half()
    apply(model, Spec(weights="int8"))
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)).half()
    sound = compared(model, x)
    assert (sound.inputs, sound.outputs, sound.tokens, sound.where) == (36, 32, 128, "")
    wrong = compared(model, x, lambda _, __, y: y * 1.01)
    assert wrong.where


def test_quantized_activations_are_taken_as_the_kernel_sees_them() -> None:
    """Given int8 activations, then their own quantization error is not the kernel's."""
    backend = load_backend("quanto")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 192)).bfloat16()
    apply(model, Spec(weights="int8", activations="int8"))
    x = activations(256, torch.bfloat16)
    with torch.no_grad(), backend.calibration():
        model(x)
    found = compared(model, x)
    assert not found.where
    module: Any = model[0]
    with torch.no_grad():
        given = nn.functional.linear(x.float(), backend.dequantize(module).values, module.bias.float())
        assert distance(module(x).float(), given) > 2 * (found.bound or 1.0)  # 0.0142, where the bound is 0.0048


def test_an_input_that_is_named() -> None:
    """Given a model that calls its layer with ``input=``, then the layer is compared like any other."""
    model = layer("int8", torch.float16)
    x = activations(256, torch.float16)
    found = fidelity.examine(
        {"model": model}, {"model": nn.Module()}, load_backend("quanto"), lambda _: model[0](input=x)
    )
    assert [(only.tokens, only.where) for only in found["model"].layers] == [(TOKENS, "")]


def test_hooks_are_gone_afterwards() -> None:
    """Given a run that raises, then no hook is left on any layer."""
    model = layer("int8", torch.float16)

    def run(_: Pending) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fidelity.examine({"model": model}, {"model": nn.Module()}, load_backend("quanto"), run)
    assert not model[0]._forward_hooks

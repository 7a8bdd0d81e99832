"""Kernel fidelity: what a quantized layer returns against a product of the weights that it stands for.

Quantizing well and multiplying wrongly are different bugs. The error that is judged here is the kernel's alone: the
layer's own input, the values of its own quantized weight, multiplied exactly. What it may be follows from the compute
dtype: every rounding that a sound kernel makes on the way (weight, product, output, bias added) is independent and at
most half a unit in the last place, and sums are kept in float32 over as many terms as there are inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import torch
from msgspec import UNSET
from torch import nn
from torch.nn import functional

from qregress.quantize import structure
from qregress.quantize.base import Backend, Dequantized
from qregress.quantize.rounding import Layer, compared_with_exact, judge
from qregress.quantize.structure import Compared
from qregress.record import LayerFidelity

#: The first layer of each kind is compared over so many tokens, every other one over fewer: a fault of a kernel is in
#: all layers that use it, and the product costs as much as a float32 forward.
FULL_ROWS, SOME_ROWS = 16384, 256
#: Of the largest number of a dtype, the power up to which inputs are compared: products and sums of squares are finite.
_POWER = 0.4
_ALIKE = 1 / 16


#: Component and name of each layer that has not been called yet.
Pending = Callable[[], set[tuple[str, str]]]


class Examined(msgspec.Struct, frozen=True):
    """Of one component: its layers, and those that were never called."""

    layers: tuple[LayerFidelity, ...]
    idle: tuple[str, ...]


def examine(
    components: dict[str, nn.Module],
    originals: dict[str, nn.Module],
    backend: Backend,
    run: Callable[[Pending], object],
) -> dict[str, Examined]:
    """Compare every quantized layer of some components at its first call while ``run`` runs.

    ``originals``: the unquantized components, for the error of quantization itself, which is told beside. ``run`` may
    ask which layers have not been called yet, to stop early.
    """
    found: dict[str, dict[str, LayerFidelity]] = {name: {} for name in components}
    kinds: set[tuple[Any, ...]] = set()
    handles = []

    def watch(component: str, name: str, module: nn.Linear | nn.Conv2d, original: torch.Tensor | None) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            handle.remove()  # the first call tells
            kind = (_class(module), *module.weight.shape, module.bias is None, output.dtype)
            rows = FULL_ROWS if kind not in kinds else SOME_ROWS
            kinds.add(kind)
            x = args[0] if args else next(iter(named.values()))
            found[component][name] = compare(name, module, x, output, backend, original, rows)

        # First of all hooks: libraries quantize outputs in hooks of their own.
        handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
        handles.append(handle)

    names: dict[str, list[str]] = {component: [] for component in components}
    for component, root in components.items():
        before = dict(originals[component].named_modules())
        for name, module in root.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and _comparable(module, backend):
                names[component].append(name)
                watch(component, name, module, getattr(before.get(name), "weight", None))

    def pending() -> set[tuple[str, str]]:
        return {(component, name) for component in names for name in names[component] if name not in found[component]}

    try:
        run(pending)
    finally:
        for handle in handles:
            handle.remove()
    return {
        component: Examined(
            layers=tuple(layers[name] for name in names[component] if name in layers),
            idle=tuple(name for name in names[component] if name not in layers),
        )
        for component, layers in found.items()
    }


def _class(module: nn.Module) -> str:
    """Of the weight: what names the kernel."""
    weight = module.weight
    return "Tensor" if type(weight) is nn.Parameter else type(weight).__name__


def _comparable(module: nn.Linear | nn.Conv2d, backend: Backend) -> bool:
    """Quantized, and a plain product: of a convolution, without groups and padded with so many zeros."""
    if isinstance(module, nn.Conv2d) and (
        module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str)
    ):
        return False
    return backend.weight_type(module) is not None


@torch.no_grad()
def compare(
    name: str,
    module: nn.Linear | nn.Conv2d,
    x: torch.Tensor,
    output: torch.Tensor,
    backend: Backend,
    original: torch.Tensor | None,
    rows: int,
) -> LayerFidelity:
    """One call of one layer. ``original``: its unquantized weight, where that is at hand.

    Tokens whose inputs are not finite are no kernel's doing, and left out.
    """
    exact = torch.float64 if output.dtype == torch.float32 else torch.float32
    values = backend.dequantize(module)
    loss = _relative(values.values - original.float(), original.float()) if original is not None else None
    unit = _unit(module, output)
    with _full_precision():
        layer = _as_product(module, backend.quantize_input(module, x), values, output, rows, exact)
        compared = compared_with_exact(layer, output.dtype, unit)
        where, excess = judge(compared)
        if where:
            # Of a few values, roundings add up in ways that no bound foresees; but then all of them are known.
            steps = values.stepwise if values.stepwise is not None else values.values.to(output.dtype)
            unpacked = msgspec.structs.replace(layer, weight=steps.flatten(1).to(exact))
            other = compared_with_exact(unpacked, output.dtype, unit)
            where, excess, compared = min((where, excess, compared), (*judge(other), other), key=_excess)
        error, bound = (_relative(part, compared.expected) for part in (compared.error, compared.allowed))
        kind = structure.describe(layer.x, layer.weight, layer.group, compared) if where else None
    return LayerFidelity(
        name=name,
        tensor=_class(module),
        inputs=layer.weight.shape[1],
        outputs=layer.weight.shape[0],
        dtype=str(output.dtype).removeprefix("torch."),
        tokens=len(layer.x),
        error=error,
        bound=bound,
        loss=loss,
        where=where,
        excess=excess,
        kind=kind.name if kind is not None else "",
        detail=(kind.detail if kind is not None else "") or UNSET,
        left_out=layer.left_out or UNSET,
    )


def _excess(judged: tuple[str, float | None, Compared]) -> float:
    return math.inf if judged[1] is None else judged[1]


def _as_product(
    module: nn.Linear | nn.Conv2d,
    x: torch.Tensor,
    known: Dequantized,
    output: torch.Tensor,
    rows: int,
    exact: torch.dtype,
) -> Layer:
    """Of so many tokens, evenly spread; a convolution is a product over patches."""
    if isinstance(module, nn.Conv2d):
        x, output = _patches(module, x, output, rows)
    else:
        x, output = x.reshape(-1, x.shape[-1]), output.reshape(-1, output.shape[-1])
        chosen = structure.spread(len(x), rows, x.device)
        x, output = x[chosen], output[chosen]
    fit = torch.linalg.vector_norm(x, math.inf, dim=1) <= torch.finfo(exact).max ** _POWER  # false of NaN too
    left_out = len(x) - int(fit.sum())
    if left_out:
        x, output = x[fit], output[fit]
    return Layer(
        x=x.to(exact),
        weight=known.values.flatten(1).to(exact),
        rounded=known.rounded.flatten(1).to(exact),
        group=known.group or known.values[0].numel(),
        alike=known.alike.to(exact) if known.alike is not None else torch.tensor(_ALIKE, dtype=exact, device=x.device),
        bias=module.bias.to(exact) if module.bias is not None else None,
        output=output.to(exact),
        left_out=left_out,
    )


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


def _relative(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    """Frobenius norm of a part, relative to that of a whole; ``None``: not finite, or of nothing."""
    size, all_of_it = (float(torch.linalg.vector_norm(each, dtype=torch.float64)) for each in (part, whole))
    if not part.numel() or not math.isfinite(size + all_of_it):
        return None
    return size / all_of_it if all_of_it > 0 else float(size > 0)


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

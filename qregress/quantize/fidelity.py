"""Kernel fidelity: what a quantized layer returns against a product of the weights that it stands for.

Quantizing well and multiplying wrongly are different bugs. The error that is judged here is the kernel's alone: the
layer's own input, the values of its own quantized weight, multiplied exactly. What it may be follows from the compute
dtype: every rounding that a sound kernel makes on the way (weight, product, output, bias added) is independent and at
most half a unit in the last place, and sums are kept in float32 over as many terms as there are inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from qregress.quantize import structure
from qregress.quantize.base import Backend
from qregress.quantize.layer_call import Call, class_of, judged, taken
from qregress.record import LayerFidelity

#: The first layer of each kind is compared over so many tokens, every other one over fewer: a fault of a kernel is in
#: all layers that use it, and the product costs as much as a float32 forward.
FULL_ROWS, SOME_ROWS = 16384, 256
#: Layers of one shape are judged together, as a GPU is done with one of them sooner than a host has said what to do:
#: those of the shape that has most bytes, whenever all that wait have so many. Judging takes three to six times that,
#: so it is more where a GPU has memory: of a T5, one or two layers have as many as the least.
_LEAST_BYTES, _MOST_BYTES, _SHARE_OF_FREE = 2**28, 2**30, 1 / 16
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
    comparing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Examined]:
    """Compare every quantized layer of some components at its first call while ``run`` runs.

    ``originals``: the unquantized components, for the error of quantization itself, which is told beside. ``run`` may
    ask which layers have not been called yet, to stop early. ``comparing``: entered for what comes between the
    layers of a call.
    """
    examination = _Examination(components, backend, comparing, _bytes_together(components.values()))
    names: dict[str, list[str]] = {component: [] for component in components}
    try:
        for component, root in components.items():
            before = dict(originals[component].named_modules())
            for name, module in root.named_modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)) and _comparable(module, backend):
                    names[component].append(name)
                    examination.watch(component, name, module, getattr(before.get(name), "weight", None))
        watched = {(component, name) for component in names for name in names[component]}
        run(lambda: watched - examination.called)
        found = examination.found()
    finally:
        examination.close()
        examination.forget()
    return {
        component: Examined(
            layers=tuple(layers[name] for name in names[component] if name in layers),
            idle=tuple(name for name in names[component] if name not in layers),
        )
        for component, layers in found.items()
    }


class _Examination:
    """Watches layers, and judges those of one shape together."""

    def __init__(
        self,
        components: Iterable[str],
        backend: Backend,
        comparing: Callable[[], AbstractContextManager[None]],
        together: int,
    ) -> None:
        self._found: dict[str, dict[str, LayerFidelity]] = {name: {} for name in components}
        self._backend = backend
        self._comparing = comparing
        self._kinds: set[tuple[Any, ...]] = set()
        self._waiting: dict[tuple[Any, ...], list[tuple[str, Call]]] = {}
        self._held = 0
        self._together = together
        self._handles: list[RemovableHandle] = []
        self.called: set[tuple[str, str]] = set()

    def watch(self, component: str, name: str, module: nn.Linear | nn.Conv2d, original: torch.Tensor | None) -> None:
        """Take the first call of a layer."""

        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            handle.remove()  # the first call tells
            self.called.add((component, name))
            x = args[0] if args else next(iter(named.values()))
            with self._comparing():
                self._take(component, name, module, x, output, original)

        # First of all hooks: libraries quantize outputs in hooks of their own.
        handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
        self._handles.append(handle)

    def _take(
        self,
        component: str,
        name: str,
        module: nn.Linear | nn.Conv2d,
        x: torch.Tensor,
        output: torch.Tensor,
        original: torch.Tensor | None,
    ) -> None:
        """Keep what is needed of a call, and judge those that are enough by now."""
        kind = (class_of(module), *module.weight.shape, module.bias is None, output.dtype)
        rows = FULL_ROWS if kind not in self._kinds else SOME_ROWS
        self._kinds.add(kind)
        call = taken(name, module, x, output, self._backend, original, rows)
        calls = self._waiting.setdefault(call.shape, [])
        calls.append((component, call))
        self._held += call.nbytes
        if rows == FULL_ROWS:
            self._judge(call.shape)
        elif self._held >= self._together:
            self._judge(max(self._waiting, key=self._bytes))

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()

    def forget(self) -> None:
        """Let go of what waits, and of cached places of tokens: an error keeps this alive, and says what is free."""
        self._waiting.clear()
        structure.spread.cache_clear()

    def found(self) -> dict[str, dict[str, LayerFidelity]]:
        """By component and name, those that were called."""
        for shape in list(self._waiting):
            self._judge(shape)
        return self._found

    def _bytes(self, shape: tuple[Any, ...]) -> int:
        return sum(call.nbytes for _, call in self._waiting[shape])

    def _judge(self, shape: tuple[Any, ...]) -> None:
        calls = self._waiting[shape]
        for (component, _), layer in zip(calls, judged([call for _, call in calls]), strict=True):
            self._found[component][layer.name] = layer
        self._held -= self._bytes(shape)
        del self._waiting[shape]  # only now: what could not be judged is tried again, not lost


def _bytes_together(components: Iterable[nn.Module]) -> int:
    """Bytes of layers from which on they are judged."""
    device = next((each.device for module in components for each in module.parameters() if each.is_cuda), None)
    if device is None:
        return _LEAST_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(min(max((free + unused) * _SHARE_OF_FREE, _LEAST_BYTES), _MOST_BYTES))


def _comparable(module: nn.Linear | nn.Conv2d, backend: Backend) -> bool:
    """Quantized, and a plain product: of a convolution, without groups and padded with so many zeros."""
    if isinstance(module, nn.Conv2d) and (
        module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str)
    ):
        return False
    return backend.weight_type(module) is not None

"""The coverage manifest: what is quantized, as what, in how many bytes; and the storage of any tensor."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

import msgspec
import torch
from msgspec import UNSET
from torch import nn

from qregress.quantize.base import Backend, Spec
from qregress.quantize.copies import joined
from qregress.record import Coverage, ModuleCoverage


class Plan(msgspec.Struct, frozen=True):
    """What a setting asks of one component, drawn up on the unquantized model, its projections joined if asked for.

    ``expected``: module name -> weight type, ``None`` for what is to be left as it is. ``spec``: the setting's own, for
    modules that are there only afterwards. ``unmatched``: patterns that mean no module. ``joined``: projection that
    joining makes -> those that it is made of; ``None``: not asked for.
    """

    expected: dict[str, str | None]
    spec: Spec
    unmatched: tuple[str, ...]
    joined: dict[str, tuple[str, ...]] | None = None


def inner_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that a tensor subclass is made of, through ``__tensor_flatten__``; a plain tensor itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if type(tensor) in (torch.Tensor, nn.Parameter) or flatten is None:
        yield tensor
        return
    names, _ = flatten()
    for name in names:
        inner = getattr(tensor, name)
        if isinstance(inner, torch.Tensor):
            yield from inner_tensors(inner)


def storages(module: nn.Module, device: str | None = None) -> dict[int, int]:
    """Storage address -> bytes of all parameters and buffers, each shared storage once.

    ``device``: only of those on that type of device.
    """
    found = {}
    for tensor in (*module.parameters(), *module.buffers()):
        for inner in inner_tensors(data_of(tensor)):
            if device in (None, inner.device.type):
                storage = inner.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return found


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes stored for one tensor: elements only, without what its storage holds beside them."""
    return sum(inner.numel() * inner.element_size() for inner in inner_tensors(tensor))


def weighted(component: nn.Module) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Modules with a weight of their own: full name, module, and its data."""
    for name, module in component.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor):
            yield name, module, data_of(weight)


def data_of(tensor: torch.Tensor) -> torch.Tensor:
    """What a parameter holds; a subclass stays itself as one, and ``.data`` of some takes as long as a product."""
    return tensor.data if type(tensor) is nn.Parameter else tensor


def plan(component: nn.Module, backend: Backend, spec: Spec) -> Plan:
    """Read off the unquantized component which modules the setting means; patterns are matched as shells do."""
    before, component = component, joined(component) if spec.fuse_qkv else component
    eligible = backend.eligible(component)
    expected = {
        name: spec.weights if name in eligible and spec.means(name) else None for name, _, _ in weighted(component)
    }
    # What only holds other modules is quantized by nobody: a pattern that means nothing else means nothing.
    leaves = [name for name, module in component.named_modules() if name in expected or not any(module.children())]
    patterns = (*spec.include, *spec.exclude)
    unmatched = tuple(pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in leaves))
    return Plan(expected, spec, unmatched, _made_of(before, component) if spec.fuse_qkv else None)


def _made_of(before: nn.Module, after: nn.Module) -> dict[str, tuple[str, ...]]:
    """Of each module that joining has made: those beside it whose weights are in its own, one below the other."""
    old = {name: data for name, _, data in weighted(before)}
    found = {}
    for name, _, data in weighted(after):
        if name in old:
            continue
        beside = {n: each for n, each in old.items() if n.rpartition(".")[0] == name.rpartition(".")[0]}
        parts: list[str] = []
        rows = 0
        while (
            part := next((n for n, w in beside.items() if torch.equal(data[rows : rows + len(w)], w)), None)
        ) is not None:
            rows += len(beside.pop(part))
            parts.append(part)
        found[name] = tuple(parts)
    return found


def manifest(component: nn.Module, backend: Backend, planned: Plan) -> Coverage:
    """What each module's weight has become, beside what was planned for it.

    A planned module that is gone is in it as missing; a layer that has come since, as of projections that were joined
    too late, should be quantized if patterns mean it.
    """
    modules = []
    for name, module, data in weighted(component):
        came = isinstance(module, (nn.Linear, nn.Conv2d)) and planned.spec.means(name)
        expected = planned.expected.get(name, planned.spec.weights if came else None)
        found = backend.weight_type(module)
        inputs = (
            planned.spec.activations if expected is not None else None,
            backend.activation_type(module) if found is not None else None,
        )
        modules.append(
            ModuleCoverage(
                name=name,
                module=type(module).__name__,
                expected=expected,
                found=found,
                tensor=type(data).__name__,
                dtype=str(data.dtype).removeprefix("torch."),
                bytes=tensor_bytes(data),
                packing=backend.packing(module),
                activations=inputs if any(inputs) else UNSET,
            )
        )
    for name in planned.expected.keys() - {module.name for module in modules}:
        gone = planned.expected[name]
        modules.append(
            ModuleCoverage(name=name, module="-", expected=gone, found=None, tensor="-", dtype="missing", bytes=0)
        )
    return Coverage(
        modules=tuple(modules),
        asked=planned.spec.weights,
        unmatched=planned.unmatched,
        joined=planned.joined if planned.joined is not None else UNSET,
    )


def kept_alive(
    pairs: dict[str, tuple[nn.Module, nn.Module]], found: dict[str, Coverage], others: Iterable[nn.Module] = ()
) -> dict[str, Coverage]:
    """The manifests with those modules whose unquantized weight is in memory beside the quantized one.

    ``pairs``: component -> the unquantized one and what has become of it. Whatever keeps a weight need not be a module,
    so it is looked for among all tensors of the process: another one of the shape, with the very values of the original
    weight, that is part of neither component, nor of ``others``, which hold the same weights rightly: T5's ``wo`` is in
    float32 whatever dtype it was loaded in. A weight of one value, as heads are initialized with, is told by nothing.
    """
    rightly = [module for pair in pairs.values() for module in pair] + [*others]
    known = {storage for module in rightly for storage in storages(module)}
    wanted: dict[tuple[torch.Size, torch.dtype], list[tuple[str, str, torch.Tensor]]] = defaultdict(list)
    for component, (original, _) in pairs.items():
        quantized = {module.name for module in found[component].modules if module.found is not None}
        for name, _, data in weighted(original):
            if name in quantized:
                wanted[data.shape, data.dtype].append((component, name, data))
    kept: dict[str, dict[str, int]] = defaultdict(dict)
    plain = [each for each in gc.get_objects() if type(each) is torch.Tensor or type(each) is nn.Parameter]
    for tensor in plain:
        if (tensor.shape, tensor.dtype) not in wanted:
            continue
        storage = tensor.untyped_storage()
        if storage.data_ptr() in known:
            continue
        known.add(storage.data_ptr())
        for component, name, data in wanted[tensor.shape, tensor.dtype]:
            if tensor.device == data.device and torch.equal(tensor, data) and bool((data != data.flatten()[0]).any()):
                kept[component][name] = storage.nbytes()
    return {
        name: msgspec.structs.replace(
            each,
            kept=tuple(module.name for module in each.modules if module.name in kept[name]),
            kept_bytes=sum(kept[name].values()),
        )
        for name, each in found.items()
    }

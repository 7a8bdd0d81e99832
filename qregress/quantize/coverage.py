"""The coverage manifest: what is quantized, as what, in how many bytes; and the storage of any tensor."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import msgspec
import torch
from torch import nn

from qregress.quantize.base import Backend
from qregress.record import Coverage, ModuleCoverage


class Plan(msgspec.Struct, frozen=True):
    """What a setting asks of one component, drawn up on the unquantized model.

    ``expected``: module name -> weight type, ``None`` for what is to be left as it is. ``weights`` and ``exclude`` are
    the setting's own, for modules that are there only afterwards. ``unmatched``: patterns that mean no module.
    """

    expected: dict[str, str | None]
    weights: str | None
    exclude: tuple[str, ...]
    unmatched: tuple[str, ...]


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


def storages(module: nn.Module) -> dict[int, int]:
    """Storage address -> bytes of all parameters and buffers, each shared storage once."""
    found = {}
    for tensor in (*module.parameters(), *module.buffers()):
        for inner in inner_tensors(tensor.data if isinstance(tensor, nn.Parameter) else tensor):
            storage = inner.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes stored for one tensor: elements only, without what its storage holds beside them."""
    return sum(inner.numel() * inner.element_size() for inner in inner_tensors(tensor))


def _weighted(component: nn.Module) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Modules with a weight of their own."""
    for name, module in component.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor):
            yield name, module, weight


def plan(component: nn.Module, backend: Backend, weights: str | None, exclude: tuple[str, ...]) -> Plan:
    """Read off the unquantized component which modules the setting means; patterns are matched as shells do."""
    expected = {name: _expected(name, module, backend, weights, exclude) for name, module, _ in _weighted(component)}
    names = [name for name, _ in component.named_modules()]
    unmatched = tuple(pattern for pattern in exclude if not any(fnmatchcase(name, pattern) for name in names))
    return Plan(expected, weights, exclude, unmatched)


def _expected(
    name: str, module: nn.Module, backend: Backend, weights: str | None, exclude: tuple[str, ...]
) -> str | None:
    excluded = any(fnmatchcase(name, pattern) for pattern in exclude)
    return weights if backend.eligible(module) and not excluded else None


def manifest(component: nn.Module, backend: Backend, planned: Plan) -> Coverage:
    """What each module's weight has become, beside what was planned for it.

    A planned module that is gone is in it as missing; one that has come since is held to the same rule.
    """
    modules = []
    for name, module, weight in _weighted(component):
        if name in planned.expected:
            expected = planned.expected[name]
        else:
            expected = _expected(name, module, backend, planned.weights, planned.exclude)
        data = weight.data if isinstance(weight, nn.Parameter) else weight
        modules.append(
            ModuleCoverage(
                name=name,
                module=type(module).__name__,
                expected=expected,
                found=backend.weight_type(data),
                tensor=type(data).__name__,
                dtype=str(weight.dtype).removeprefix("torch."),
                bytes=tensor_bytes(data),
            )
        )
    for name in planned.expected.keys() - {module.name for module in modules}:
        gone = planned.expected[name]
        modules.append(
            ModuleCoverage(name=name, module="-", expected=gone, found=None, tensor="-", dtype="missing", bytes=0)
        )
    return Coverage(modules=tuple(modules), asked=planned.weights, unmatched=planned.unmatched)

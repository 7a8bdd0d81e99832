"""Which weight types run on which device. Those that need nothing compiled are tried; the others are deduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from qregress.doctor.devices import Device
from qregress.doctor.facts import Fact, absence
from qregress.errors import typed_line
from qregress.quantize import BACKENDS, extensions, load_backend, missing, weight_types

_FIRST = "quanto"
_ACTIVATIONS = " activations"
_MARLIN = 8  # compute capability from which quanto multiplies float8 in its CUDA extension

#: Backend and kind of device -> types of weights and activations that a configuration asks for.
Named = Mapping[tuple[str, str], AbstractSet[str]]
_NONE: Named = {}


class Ability(msgspec.Struct, frozen=True):
    """What a backend can do on a device.

    ``lacks``: weight type, or type ``of_activations`` -> why not; ``cause``: the fact that explains all; ``how``: what
    to do about it.
    """

    backend: str
    device: Device
    lacks: dict[str, str]
    cause: str = ""
    how: str = ""

    @property
    def name(self) -> str:
        """The name of its fact."""
        return f"{self.backend} on {self.device.name}"


def of_activations(kind: str) -> str:
    """What a type of activations is called beside types of weights."""
    return f"{kind}{_ACTIVATIONS}"


def abilities(devices: list[Device], named: Named = _NONE) -> list[Ability]:
    """Backends that settings name, and quanto, on each device; of several CUDA devices of one model, the first.

    Others are not imported: each brings a library of its own.
    """
    models = {(device.kind, device.model): device for device in reversed(devices)}
    chosen = [device for device in devices if device in models.values()]
    backends = [name for name in BACKENDS if name == _FIRST or any(name == backend for backend, _ in named)]
    return [
        _ability(backend, device, named.get((backend, device.kind), frozenset()))
        for device in chosen
        for backend in backends
    ]


def _ability(backend: str, device: Device, named: AbstractSet[str]) -> Ability:
    absent = missing(backend)
    if absent is not None:
        told, _, how = absent.partition(": ")
        return Ability(backend, device, dict.fromkeys(weight_types(backend), told), how=how)
    extension = extensions.NEEDED.get((backend, device.kind))
    compiled = extension.weights if extension is not None else frozenset()
    if not _has_marlin(device):
        compiled -= {"float8"}
    tried = {kind: _try(backend, device.name, [kind]) for kind in weight_types(backend) if kind not in compiled}
    lacks = {kind: why for kind, why in tried.items() if why is not None}
    if lacks.keys() == tried.keys():
        lacks = dict.fromkeys(weight_types(backend), next(iter(lacks.values())))
        how = f"python -c 'import {BACKENDS[backend].module}' shows the whole error"
        return Ability(backend, device, lacks, how=how)
    tool = extensions.lacking(extension) if extension is not None else None
    for each in sorted(named - {*weight_types(backend)}):
        why = _try(backend, device.name, [], [each.removesuffix(_ACTIVATIONS)])
        if why is not None:
            lacks[each] = why
    if extension is not None and tool is not None:
        lacks |= dict.fromkeys(sorted(compiled), f"no {tool.name} to build optimum-quanto's {extension.name} with")
    return Ability(backend, device, lacks, tool.name if tool is not None else "")


def _has_marlin(device: Device) -> bool:
    import torch

    return device.kind == "cuda" and torch.cuda.get_device_capability(device.name)[0] >= _MARLIN


def _try(backend: str, device: str, weights: list[str], activations: Sequence[str] = ()) -> str | None:
    """Import a backend and quantize a small layer; what went wrong, in one line."""
    try:
        return load_backend(backend).prepare(weights, device, lambda _: None, activations)
    except Exception as error:  # noqa: BLE001 - libraries that do not fit each other raise anything
        return typed_line(error)


def facts(found: list[Ability], named: Named) -> tuple[Fact, ...]:
    """A fact for each, and for backends that no setting names."""
    tried = {ability.backend for ability in found}
    others = [backend for backend in BACKENDS if backend not in tried]
    return (
        *(_fact(ability, named.get((ability.backend, ability.device.kind), set())) for ability in found),
        *(_untried(backend) for backend in others),
    )


def _untried(backend: str) -> Fact:
    absent = missing(backend)
    if absent is None:
        return Fact(name=backend, state="ok", detail="installed; not tried, as no setting names it")
    detail, _, how = absent.partition(": ")
    return Fact(name=backend, state="absent", detail=detail, how=how)


def _fact(ability: Ability, named: AbstractSet[str]) -> Fact:
    runs = ", ".join(kind for kind in weight_types(ability.backend) if kind not in ability.lacks) or "nothing"
    reasons: dict[str, list[str]] = {}
    for kind, reason in ability.lacks.items():
        reasons.setdefault(reason, []).append(kind)
    if not reasons:
        return Fact(name=ability.name, state="ok", detail=runs, named=bool(named))
    detail = "; ".join([runs, *(f"not {', '.join(kinds)}: {reason}" for reason, kinds in reasons.items())])
    state = absence(named=not named.isdisjoint(ability.lacks))
    return Fact(name=ability.name, state=state, detail=detail, how=ability.how, named=bool(named), cause=ability.cause)

"""The configuration that is found here: what it asks for, and which of its cells can run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from qregress.config import EVERYTHING, Config, embedded_path
from qregress.doctor.abilities import Ability, of_activations
from qregress.doctor.facts import Cells, Fact
from qregress.matrix import DEVICES, Cell


class Needs(msgspec.Struct, frozen=True):
    """What a configuration asks for. ``weights``: backend and kind of device -> types of weights and activations."""

    weights: dict[tuple[str, str], set[str]] = {}
    cuda_only: bool = False


def needs(config: Config) -> Needs:
    """Of all its cells."""
    weights: dict[tuple[str, str], set[str]] = {}
    for cell in config.cells():
        for kind in cell.pipeline.devices:
            asked = (*cell.setting.weights.values(), *_activations(cell))
            weights.setdefault((cell.setting.backend, kind), set()).update(asked)
    return Needs(weights, cuda_only=all(set(pipeline.devices) == {"cuda"} for pipeline in config.pipelines))


def title(path: Path) -> str:
    """The configuration's name in a sentence."""
    return "the embedded matrix" if path == embedded_path() else str(path)


def examine(config: Config, abilities: list[Ability]) -> tuple[Cells, tuple[Fact, ...]]:
    """How many cells can run, on each kind of device and on any; a fact for each kind, one for what cannot run."""
    cells = config.cells()
    present = {ability.device.kind for ability in abilities}
    found = Fact(name="configuration", state="ok", detail=_found(config, len(cells)))
    facts = (found, *(_on(kind, cells, abilities, here=kind in present) for kind in DEVICES))
    reasons = [_why_nowhere(cell, abilities, present) for cell in cells]
    not_here = Counter(reason for reason in reasons if reason is not None)
    counted = Cells(len(cells), reasons.count(None), dict(not_here))
    return counted, (*facts, *_not_here(counted))


def without_torch(config: Config) -> tuple[Cells, tuple[Fact, ...]]:
    """None of them."""
    total, reason = len(config.cells()), "torch cannot be imported"
    found = Fact(name="configuration", state="ok", detail=_found(config, total))
    return Cells(total, 0, {reason: total}), (found, *_not_here(Cells(total, 0, {reason: total})))


def _found(config: Config, count: int) -> str:
    name, selected = config.selection(None)
    cells = (
        f"{count} cells" if name == EVERYTHING else f"{count} cells, {len(selected)} of them in the selection '{name}'"
    )
    if config.path == embedded_path():
        return f"the embedded matrix, as there is no qregress.toml here: {cells}"
    return f"{config.path}: {cells}"


def _on(kind: str, cells: list[Cell], abilities: list[Ability], *, here: bool) -> Fact:
    """Of the cells whose pipeline lists this kind of device, how many can run."""
    listed = [cell for cell in cells if kind in cell.pipeline.devices]
    name = f"cells on {kind}"
    if not listed:
        return Fact(name=name, state="absent", detail=f"no pipeline lists {kind} in devices")
    if not here:
        return Fact(name=name, state="absent", detail=f"0 of {len(listed)}: there is no such device here")
    reasons = Counter(reason for cell in listed if (reason := _why_not(cell, kind, abilities)) is not None)
    able = f"{len(listed) - reasons.total()} of {len(listed)} can run"
    if not reasons:
        return Fact(name=name, state="ok", detail=able, named=True)
    detail = "; ".join([able, *(f"{count} cannot: {reason}" for reason, count in reasons.items())])
    explains = next(each for each in abilities if each.device.kind == kind and each.lacks)
    cause = explains.cause or explains.name
    return Fact(name=name, state="missing", detail=detail, named=True, cause=cause)


def _not_here(cells: Cells) -> list[Fact]:
    """A fact for each reason why cells cannot run on any device of this machine."""
    return [
        Fact(name=f"{count} cells NOT run here", state="absent", detail=reason)
        for reason, count in cells.not_here.items()
    ]


def _why_not(cell: Cell, kind: str, abilities: list[Ability]) -> str | None:
    """Why a cell cannot run on a kind of device that is here: the first of the types that it asks for that cannot."""
    unable = cell.setting.unable(kind)
    if unable is not None:
        return unable
    lacks = next(each.lacks for each in abilities if each.device.kind == kind and each.backend == cell.setting.backend)
    asked = [*sorted(set(cell.setting.weights.values())), *_activations(cell)]
    lacking = next((each for each in asked if each in lacks), None)
    return None if lacking is None else f"{lacking}: {lacks[lacking]}"


def _activations(cell: Cell) -> list[str]:
    """Types of activations, as abilities name them."""
    return sorted({of_activations(kind) for kind in cell.setting.activations.values()})


def _why_nowhere(cell: Cell, abilities: list[Ability], present: set[str]) -> str | None:
    """Why a cell cannot run on any device that its pipeline lists, ``None`` where it can on one."""
    listed = cell.pipeline.devices
    reasons = [_why_not(cell, kind, abilities) for kind in listed if kind in present]
    if None in reasons:
        return None
    fallback = f"pipeline '{cell.pipeline.name}' lists only {' and '.join(listed)} in devices"
    return next((reason for reason in reasons if reason is not None), fallback)

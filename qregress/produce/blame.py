"""Which component, and which block of it, carries a cell's loss: the cell again with one part at a time unquantized."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.produce.variant import assemble
from qregress.record import Blame, Restored

#: More blocks than these are tried in runs of neighbours first, then one by one in the run that carries most.
FEW = 8

Distance = Callable[[DiffusionPipeline], float]
OnStep = Callable[[int, int], None]


def blame(
    pipeline: DiffusionPipeline,
    pristine: DiffusionPipeline,
    distance: Distance,
    *,
    components: Iterable[str],
    whole: float,
    score: Literal["lpips", "latents"],
    prompts: Sequence[int],
    on_step: OnStep = lambda _done, _total: None,
) -> Blame:
    """Restore each quantized component alone, then each block alone of the component whose restoring helps most.

    ``pristine``: the unquantized pipeline in the same compute dtype; ``components``: the quantized ones, as others may
    be copies too, to be compiled. ``distance`` generates some prompts, those at ``prompts``, and returns their mean
    distance to the reference's in ``score``; ``whole``: the same of ``pipeline`` as it is. ``on_step`` is told how many
    calls of ``distance`` are done, and how many there will be as far as that is known.

    Costs one call of ``distance`` for each quantized component, and then one for each changed block of one of them, or,
    where those are n > ``FEW``, 2 sqrt(n) + 1 at most: 8 for 12 blocks, 16 for 57. Where no component's restoring helps
    no block is tried. In the end, and on any error, ``pipeline`` has the modules that it had.
    """
    names = tuple(components)
    trials = _Trials(distance, whole, on_step)
    trials.expect(len(names))
    found = [trials.run(name, assemble(pipeline, {name: pristine.components[name]})) for name in names]
    result = Blame(score=score, prompts=tuple(prompts), distance=_finite(whole), components=trials.sort(found))
    if not result.components or result.share(result.components[0]) <= 0:
        return result
    most = result.components[0].name
    runs, blocks = _blocks(pipeline, pipeline.components[most], pristine.components[most], trials)
    return Blame(
        score=score,
        prompts=result.prompts,
        distance=result.distance,
        components=result.components,
        component=most,
        runs=runs,
        blocks=blocks,
    )


def blocks_of(component: nn.Module) -> dict[str, nn.Module]:
    """A component in parts, by name, each module once: a module that has two names goes by its first.

    Entries of its ``ModuleList`` at any depth, of nested ones the outermost's; and of all else the largest parts that
    have no such list in them.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, module in _parts(component, ""):
        found.setdefault(id(module), (name, module))
    return dict(found.values())


def _parts(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for key, child in module.named_children():
        name = f"{prefix}{key}"
        if isinstance(module, nn.ModuleList) or not any(isinstance(inner, nn.ModuleList) for inner in child.modules()):
            yield name, child
        else:
            yield from _parts(child, f"{name}.")


def changed_blocks(component: nn.Module, pristine: nn.Module) -> dict[str, tuple[str, ...]]:
    """The blocks in which anything differs from the unquantized component, and all names that restore each of them.

    A module inside a block that is reachable from outside of it too is restored there as well. What the unquantized
    component has no counterpart of, as where a library has merged layers, cannot be restored and is left out.
    """
    known = {name for name, _ in pristine.named_modules(remove_duplicate=False)}
    everywhere = list(component.named_modules(remove_duplicate=False))
    found = {}
    for name, block in blocks_of(component).items():
        inside = {id(module) for module in block.modules()}
        names = [place for place, module in everywhere if id(module) in inside]
        outermost = tuple(n for n in names if not any(n.startswith(f"{other}.") for other in names))
        if known.issuperset(outermost) and _differ(block, pristine.get_submodule(name)):
            found[name] = outermost
    return found


@contextmanager
def restored(component: nn.Module, pristine: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Modules of an unquantized component in the places of a quantized one's, for as long as the context lasts."""
    before = [(name, component.get_submodule(name)) for name in names]
    try:
        for name in names:
            component.set_submodule(name, pristine.get_submodule(name))
        yield
    finally:
        for name, module in before:
            component.set_submodule(name, module)


def _blocks(
    pipeline: DiffusionPipeline, component: nn.Module, pristine: nn.Module, trials: _Trials
) -> tuple[tuple[Restored, ...], tuple[Restored, ...]]:
    """What is left with runs of neighbouring blocks restored, where there are many, and with single ones."""
    places = changed_blocks(component, pristine)

    def restore(label: str, blocks: Sequence[str]) -> Restored:
        with restored(component, pristine, [name for block in blocks for name in places[block]]):
            return trials.run(label, pipeline)

    blocks = list(places)
    runs: dict[str, list[str]] = {}
    if len(blocks) > FEW:
        size = math.isqrt(len(blocks) - 1) + 1
        cut = [blocks[start : start + size] for start in range(0, len(blocks), size)]
        runs = {f"{run[0]} to {run[-1]}": run for run in cut}
        trials.expect(len(runs) + size)
    else:
        trials.expect(len(blocks))
    tried = trials.sort([restore(label, run) for label, run in runs.items()])
    if tried:
        blocks = runs[tried[0].name]
    return tried, trials.sort([restore(block, [block]) for block in blocks])


def _differ(block: nn.Module, pristine: nn.Module) -> bool:
    """Whether a class, a parameter or a buffer is another one, or has another type or value."""
    others = dict(pristine.named_modules())
    modules = dict(block.named_modules())
    return modules.keys() != others.keys() or any(_own(module, others[name]) for name, module in modules.items())


def _own(module: nn.Module, other: nn.Module) -> bool:
    mine, its = _tensors(module), _tensors(other)
    if type(module) is not type(other) or mine.keys() != its.keys():
        return True
    return any(
        type(mine[key]) is not type(its[key])
        or mine[key].dtype != its[key].dtype
        or not torch.equal(mine[key], its[key])
        for key in mine
    )


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))


class _Trials:
    """Distances with something restored, counted."""

    def __init__(self, distance: Distance, whole: float, on_step: OnStep) -> None:
        self._distance, self._whole, self._on_step = distance, whole, on_step
        self._done = self._total = 0

    def expect(self, more: int) -> None:
        """There will be so many more of them."""
        self._total += more

    def run(self, name: str, pipeline: DiffusionPipeline) -> Restored:
        """What is left now."""
        left = self._distance(pipeline)
        self._done += 1
        self._on_step(self._done, max(self._done, self._total))
        return Restored(name=name, distance=_finite(left))

    @staticmethod
    def sort(found: list[Restored]) -> tuple[Restored, ...]:
        """Those that leave least first; equal ones stay in their order."""
        return tuple(sorted(found, key=lambda part: math.inf if part.distance is None else part.distance))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

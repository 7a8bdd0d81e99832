"""The noise floor of a cell: the same prompts again, under changes that may not matter, all in the same dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import msgspec
import torch
from msgspec import UNSET
from torch.nn.attention import SDPBackend, sdpa_kernel

from qregress.frames import where
from qregress.metrics.latents import relative_l2
from qregress.produce import scoring
from qregress.produce.generate import Generated, join
from qregress.record import Noise, NoiseVariant, Record

#: The first so many prompts are run again with other threads and in another batch, which seldom move anything, and so
#: many with another attention kernel, which always does: the scatter of two says little of what eight will do.
ONE, FEW, MORE = 1, 2, 4

Call = Callable[[Sequence[int]], Generated]
OnVariant = Callable[[int, int], None]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def other_attention() -> AbstractContextManager[None]:
    """Within it attention is computed by plain products, as legally as by the kernel that is chosen otherwise."""
    return sdpa_kernel(SDPBackend.MATH)


class _Change(msgspec.Struct, frozen=True):
    """A change that may not matter: what is different while ``batches`` of the first ``prompts`` run."""

    name: str
    context: AbstractContextManager[None]
    prompts: int
    batches: list[list[int]]


def _changes(device: str, prompts: int, batch_size: int) -> Iterator[_Change]:
    # At least a whole batch: with a part of one, every change would be a change of the batch as well.
    one, few, more = (min(prompts, max(count, batch_size)) for count in (ONE, FEW, MORE))
    # Alone where they ran together, together where they ran alone; backwards in both.
    backwards = list(range(few))[::-1]
    yield _Change("again", nullcontext(), few, _usual(few, batch_size))
    yield _Change("batch", nullcontext(), few, [backwards] if batch_size == 1 else [[index] for index in backwards])
    if device == "cpu" and torch.get_num_threads() > 1:
        yield _Change("threads", _threads(torch.get_num_threads() // 2), one, _usual(one, batch_size))
    yield _Change("attention", other_attention(), more, _usual(more, batch_size))


def _usual(prompts: int, batch_size: int) -> list[list[int]]:
    return [list(range(start, min(start + batch_size, prompts))) for start in range(0, prompts, batch_size)]


def measure(
    call: Call,
    record: Record,
    made: Generated,
    reference: Generated | None,
    device: str,
    clip: str,
    lpips: str,
    batch_size: int,
    on_variant: OnVariant,
) -> Noise:
    """Run the variants of one cell and score them as the cell was scored.

    ``made``: the cell's own images; ``reference``: its reference's, ``None`` for a reference. ``call`` takes places of
    prompts. Repeated calls were compared bit by bit while the cell ran: only where they differed are they run again.
    """
    changes = list(_changes(device, len(record.prompts), batch_size))
    found = []
    for done, change in enumerate(changes):
        own = made.rows(range(change.prompts))
        base = reference.rows(range(change.prompts)) if reference is not None else None
        if change.name == "again" and record.repeatable:
            changed = own
        else:
            with change.context:
                parts = {index: part for batch in change.batches for index, part in _each(batch, call(batch))}
            changed = join([parts[index] for index in range(change.prompts)])
        found.append(_compare(change.name, record, own, changed, base, clip=clip, lpips=lpips))
        on_variant(done + 1, len(changes))
    return Noise(variants=tuple(found))


def _each(batch: Sequence[int], made: Generated) -> Iterator[tuple[int, Generated]]:
    for row, index in enumerate(batch):
        yield index, made.rows([row])


def _compare(
    name: str, record: Record, own: Generated, changed: Generated, base: Generated | None, *, clip: str, lpips: str
) -> NoiseVariant:
    """By how much the scores of each image or prompt moved; equal bits need no scoring, what is no image has none."""
    scores, prompts = record.scores, len(own.latents)
    untrained = scores is not None and scores.note is not None
    if problems := scoring.problems_beyond(changed, own, trained=not untrained):
        first = problems[0]
        return NoiseVariant(name=name, unsound=f"{where(first.prompt, first.frame)}: {first.kind}, {first.detail}")
    trained = scores is not None and bool(scores.clip)
    moves = scores is not None and bool(scores.motion) and base is not None
    if own.equals(changed):
        still, each = (0.0,) * len(own.images), (0.0,) * prompts
        return NoiseVariant(
            name=name,
            lpips=still if trained and base is not None else (),
            clip=still if trained else (),
            latents=each,
            pixels=still,
            motion=each if moves else UNSET,
        )
    target = base if base is not None else own
    new_lpips: tuple[float, ...] = ()
    new_clip: tuple[float, ...] = ()
    if trained:
        new_lpips, new_clip = scoring.rescore(changed, base, record.prompts[:prompts], lpips=lpips, clip=clip)
    return NoiseVariant(
        name=name,
        lpips=_moved(scores.lpips if scores is not None else (), new_lpips),
        clip=tuple(value / 100 for value in _moved(scores.clip if scores is not None else (), new_clip)),
        latents=_moved(_distances(own, target), _distances(changed, target)),
        pixels=_pixels(own, changed),
        motion=_moved(scoring.motions(own, target) or (), scoring.motions(changed, target) or ()) if moves else UNSET,
    )


def _distances(made: Generated, target: Generated) -> list[float]:
    return [relative_l2(a, b) for a, b in zip(made.latents, target.latents, strict=True)]


def _moved(before: Sequence[float], after: Sequence[float]) -> tuple[float, ...]:
    """Entry by entry; what was not finite before has nothing to be moved from."""
    pairs = zip(before, after, strict=False)
    return tuple(b - a if math.isfinite(a) and math.isfinite(b) else 0.0 for a, b in pairs)


def _pixels(a: Generated, b: Generated) -> tuple[float, ...]:
    """Root mean square difference of each image, in levels of 8 bits."""
    square = (a.images.float() - b.images.float()).square().flatten(1).mean(1)
    return tuple(square.sqrt().tolist())

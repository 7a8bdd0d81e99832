"""The noise floor of a cell: the same prompts again, under changes that may not matter, all in the same dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from qregress.metrics.latents import relative_l2
from qregress.produce.generate import Generated, join
from qregress.produce.scoring import rescore
from qregress.record import Noise, NoiseVariant, Record

#: The first so many prompts are run again. More would cost as much as the cell: three variants of two are six images.
PROMPTS = 2

_BEYOND = 1e9  # JSON has no infinity

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


def _variants(
    device: str, prompts: int, batch_size: int
) -> Iterator[tuple[str, AbstractContextManager[None], list[list[int]]]]:
    """Name, what is different, and the batches."""
    everything = list(range(prompts))
    usual = [everything[start : start + batch_size] for start in range(0, prompts, batch_size)]
    # Alone where they ran together, together where they ran alone; backwards in both.
    other = [everything[::-1]] if batch_size == 1 else [[index] for index in everything[::-1]]
    yield "again", nullcontext(), usual
    yield "batch", nullcontext(), other
    if device == "cpu" and torch.get_num_threads() > 1:
        yield "threads", _threads(torch.get_num_threads() // 2), usual
    yield "attention", sdpa_kernel(SDPBackend.MATH), usual


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
    count = min(PROMPTS, len(record.prompts))
    own = made.rows(range(count))
    base = reference.rows(range(count)) if reference is not None else None
    variants = list(_variants(device, count, batch_size))
    found = []
    for done, (name, context, batches) in enumerate(variants):
        if name == "again" and record.repeatable:
            changed = own
        else:
            with context:
                parts = {index: part for batch in batches for index, part in _each(batch, call(batch))}
            changed = join([parts[index] for index in range(count)])
        found.append(_compare(name, record, own, changed, base, clip=clip, lpips=lpips))
        on_variant(done + 1, len(variants))
    return Noise(variants=tuple(found))


def _each(batch: Sequence[int], made: Generated) -> Iterator[tuple[int, Generated]]:
    for row, index in enumerate(batch):
        yield index, made.rows([row])


def _compare(
    name: str, record: Record, own: Generated, changed: Generated, base: Generated | None, *, clip: str, lpips: str
) -> NoiseVariant:
    """By how much the scores of each prompt moved; equal bits need no scoring."""
    scores, count = record.scores, len(own.images)
    trained = scores is not None and bool(scores.clip)
    still = (0.0,) * count
    if own.equals(changed):
        return NoiseVariant(
            name=name,
            lpips=still if trained and base is not None else (),
            clip=still if trained else (),
            latents=still,
            pixels=still,
        )
    target = base if base is not None else own
    new_lpips: tuple[float, ...] = ()
    new_clip: tuple[float, ...] = ()
    if trained:
        new_lpips, new_clip = rescore(changed, base, record.prompts[:count], lpips=lpips, clip=clip)
    return NoiseVariant(
        name=name,
        lpips=_moved(scores.lpips if scores is not None else (), new_lpips),
        clip=tuple(value / 100 for value in _moved(scores.clip if scores is not None else (), new_clip)),
        latents=_moved(_distances(own, target), _distances(changed, target)),
        pixels=_pixels(own, changed),
    )


def _distances(made: Generated, target: Generated) -> list[float]:
    return [relative_l2(a, b) for a, b in zip(made.latents, target.latents, strict=True)]


def _moved(before: Sequence[float], after: Sequence[float]) -> tuple[float, ...]:
    """Prompt by prompt; what is not finite before and after has not moved, what is so once has moved beyond bounds."""
    pairs = zip(before, after, strict=False)
    return tuple(b - a if math.isfinite(a) and math.isfinite(b) else (0.0 if a == b else _BEYOND) for a, b in pairs)


def _pixels(a: Generated, b: Generated) -> tuple[float, ...]:
    """Root mean square difference of each prompt's image, in levels of 8 bits."""
    square = (a.images.float() - b.images.float()).square().flatten(1).mean(1)
    return tuple(square.sqrt().tolist())

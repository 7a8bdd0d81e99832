"""Where optimum-quanto's float8 Marlin kernel hands a sum from one block to another (0.2.7, fp8_marlin.cu).

Tokens are taken in runs of 64, up to 16 of them side by side, and what is left over last. Tiles of all of them, column
by column of outputs, are dealt to as many blocks as the device has multiprocessors, each block as many as the next.
Where a block begins within a column, the sum is cut: the block with the last inputs writes what it has summed to the
output, in the compute dtype, for the one before it to go on with, and so on up to the first inputs.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from qregress.quantize.base import Cuts

#: Inputs and outputs of a tile, in the order in which they are tried; for up to 16 tokens, and for more.
_FEW = ((128, 128), (64, 128), (128, 64))
_MANY = ((64, 256), (64, 128), (128, 64))
_PAR, _STAGES, _ROOM = 16, 4, 0.95


def tile(outputs: int, inputs: int, tokens: int, shared: int) -> tuple[int, int, int] | None:
    """Inputs and outputs of a tile and tokens of a run, of a device with so many bytes of shared memory for a block."""
    for most in (4, 3, 2, 1):
        for wide, high in _FEW if tokens <= _PAR else _MANY:
            if inputs % wide or outputs % high:
                continue
            rows = 16 * min(-(-tokens // 16), most)
            if (rows * wide * 2 + wide * high) * _STAGES < _ROOM * (shared - high * 2 * _STAGES):
                return wide, high, 16 * most
    return None


def cuts(outputs: int, inputs: int, blocks: int, shared: int, tokens: int, chosen: torch.Tensor) -> Cuts | None:
    """Of some tokens of a call with so many, by their places.

    ``blocks``: multiprocessors of the device; ``shared`` as in ``tile``.
    """
    found = _spans(outputs, inputs, blocks, shared, tokens)
    if found is None:
        return None
    places, columns, spans = found
    place, first, last, column = spans.to(chosen.device).unbind(1)
    within = (chosen >= first[:, None]) & (chosen < last[:, None])  # [spans, tokens]
    here = torch.zeros(len(places) * columns, len(chosen), dtype=torch.uint8, device=chosen.device)
    here.index_add_(0, place * columns + column, within.to(torch.uint8))
    return Cuts(places, here.unflatten(0, (len(places), columns)).mT.bool(), outputs // columns)


@lru_cache(maxsize=64)  # kilobytes each; they take milliseconds, and every group of layers asks for them
def _spans(
    outputs: int, inputs: int, blocks: int, shared: int, tokens: int
) -> tuple[tuple[int, ...], int, torch.Tensor] | None:
    """Places of cuts, the number of columns, and of each cut its place's number, first token, end and column."""
    found = tile(outputs, inputs, tokens, shared)
    if found is None:
        return None
    wide, high, run = found
    rows, columns = inputs // wide, outputs // high
    spans: list[tuple[int, int, int, int]] = []
    start = 0
    while start < tokens:
        left = tokens - start
        par = min(left // run, _PAR) if left > run else 1
        end = start + (run * par if left > run else left)
        each = -(-rows * columns * par // blocks)
        for edge in range(each, rows * columns * par, each):
            column, row = divmod(edge, rows)
            if row:
                side, column = divmod(column, columns)
                first = start + side * run
                spans.append((row * wide, first, min(first + run, end), column))
        start = end
    places = sorted({place for place, *_ in spans})
    number = {place: index for index, place in enumerate(places)}
    told = torch.tensor([(number[place], *rest) for place, *rest in spans])
    return (tuple(places), columns, told) if spans else None

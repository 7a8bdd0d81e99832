"""Marlin's slices, against a replay of what its kernels deal to which block."""

from __future__ import annotations

from collections import Counter

import pytest

from qregress.quantize.marlin import slices

BLOCKS = 132  # of an H100 and an H200
MAX_PAR = 16


def dealt(outputs: int, inputs: int, tokens: int, tile: tuple[int, int], most: int) -> list[int]:
    """Most blocks that meet in a column, token by token; ``tile``: inputs and outputs, ``most``: times 16 tokens."""
    rows, columns = inputs // tile[0], outputs // tile[1]
    told: list[int] = []
    while len(told) < tokens:
        left = tokens - len(told)
        par = min(left // (16 * most), MAX_PAR) if -(-left // 16) > most else 1
        run = 16 * most * par if -(-left // 16) > most else left
        each = -(-rows * columns * par // BLOCKS)
        met: Counter[int] = Counter()
        for block in range(BLOCKS):
            tiles = range(each * block, min(each * (block + 1), rows * columns * par))
            met.update({place // rows for place in tiles})
        told += [max(met.values())] * run
    return told


@pytest.mark.parametrize("tokens", [1, 16, 64, 65, 300, 1200, 8192])
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(4096, 4096), (10240, 4096), (4096, 10240), (1152, 1152), (4608, 1152), (1152, 4608)]
)
def test_no_token_has_more_slices(outputs: int, inputs: int, tokens: int) -> None:
    """Given any tile and any number of tokens of a run, then no token's sums are made in more parts than is said."""
    most = slices(outputs, inputs, BLOCKS, tokens)
    assert len(most) == tokens
    for tile in ((64, 256), (64, 128), (128, 128), (128, 64)):
        if inputs % tile[0] or outputs % tile[1]:
            continue
        for run in (4, 3, 2, 1):
            found = dealt(outputs, inputs, tokens, tile, run)
            assert all(here <= limit for here, limit in zip(found, most, strict=True))


def test_the_rest_of_the_tokens_has_more_than_the_others() -> None:
    """Given the 300 tokens of a T5, then those that are left over are shared by more blocks, as few fill the device."""
    most = slices(4096, 4096, BLOCKS, 300)
    assert max(most[:192]) <= 6
    assert min(most[256:]) == 10
    assert dealt(4096, 4096, 300, (64, 256), 4)[255:257] == [2, 8]


def test_one_block_for_all_inputs() -> None:
    """Given as few inputs as a tile has, then there is nothing to hand on."""
    assert {*slices(256, 64, BLOCKS, 100)} == {1}

"""How optimum-quanto's Marlin kernels share a sum among blocks (0.2.7: fp8_marlin.cu, marlin_cuda_kernel.cu).

Tokens are taken in runs of 64 times ``par``. A run's tiles, column by column of outputs, are dealt to as many blocks as
the device has multiprocessors. Where several blocks meet in a column, the one with the last inputs writes what it has
summed to the output, in the compute dtype, for the one before it to go on with, and so on up to the first inputs.
"""

from __future__ import annotations

#: The least inputs and the most outputs of a tile, and the most runs of tokens side by side.
_INPUTS, _OUTPUTS, _PAR = 64, 256, 16
#: Tokens of a run: 64, or as many less as a device's shared memory demands.
_RUNS = (64, 48, 32, 16)


def slices(outputs: int, inputs: int, blocks: int, tokens: int) -> list[int]:
    """In how many parts, at most, the sums of each token of a call are made.

    ``blocks``: multiprocessors of the device. The tile is not known, nor are the tokens of a run: the most is taken.
    """
    most = [1] * tokens
    for run in _RUNS:
        start = 0
        while start < tokens:
            par = min(max(1, (tokens - start) // run), _PAR) if tokens - start > run else 1
            # One that starts and one that ends in a column included.
            meet = max(1, min(inputs // _INPUTS, blocks * _OUTPUTS // (outputs * par) + 2))
            end = min(start + run * par, tokens)
            most[start:end] = [max(meet, known) for known in most[start:end]]
            start = end
    return most

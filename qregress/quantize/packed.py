"""Values out of what they are packed into: bytes and Marlin's tiles by optimum-quanto, tiles of four bits by torch."""

from __future__ import annotations

import torch


def unpack(data: torch.Tensor) -> torch.Tensor:
    """A quanto ``PackedTensor`` as uint8 values, in plain torch: its own C++ extension is one of the things on trial.

    Value ``i`` of a byte belongs to the ``i``-th part of the first dimension. Any other tensor is returned as it is.
    """
    if type(data).__name__ != "PackedTensor":
        return data
    names, meta = data.__tensor_flatten__()  # type: ignore[attr-defined]
    bits, inner = int(meta["bits"]), getattr(data, names[0])
    parts = [(inner >> (bits * place)) & (2**bits - 1) for place in range(8 // bits)]
    return torch.cat(parts)[: data.shape[0]]


#: Where a word of a tile has the values that a thread reads: two beside each other, two eight further on, and the same
#: of the next tile.
_PLACES = (0, 16, 4, 20, 8, 24, 12, 28)


def unpack_tiles(data: torch.Tensor) -> torch.Tensor:
    """Values of four bits ``[outputs, inputs]``, int32, as ``torch._convert_weight_to_int4pack`` packs them on CUDA.

    ``data``: int32 ``[outputs / 8, inputs / (16 * tiles), 32, tiles / 2]``. A tile is 8 outputs by 16 inputs, as one
    instruction of a tensor core takes it, 4 threads to an output: aten/src/ATen/native/cuda/int4mm.cu.
    """
    rows, columns, _, words = data.shape
    values = (data.unsqueeze(-1) >> torch.tensor(_PLACES, device=data.device)) & 15
    # Thread: output and quarter. Value: which tile of the word, first or second half of its inputs, which of two.
    values = values.reshape(rows, columns, 8, 4, words, 2, 2, 2).permute(0, 2, 1, 4, 5, 6, 3, 7)
    return values.reshape(rows * 8, columns * words * 2 * 16)


def unpack_marlin(data: torch.Tensor) -> torch.Tensor:
    """Bytes of float8 ``[outputs, inputs]``, uint8, as optimum-quanto packs them for its Marlin kernel.

    ``data``: int32 ``[inputs / 16, outputs * 4]``. A tile is 16 inputs by 64 outputs: from its slowest to its fastest,
    8 outputs beside each other, 4 pairs of inputs, 8 of those eights, the two of a pair, and both halves of the inputs.
    """
    rows = len(data)
    tiles = data.contiguous().view(torch.uint8).reshape(rows, -1, 8, 4, 8, 2, 2)
    # In their own order: an output's tile, eight and place in it; an input's tile, half, pair and place in that.
    return tiles.permute(1, 4, 2, 0, 6, 3, 5).reshape(-1, rows * 16)


def unpack_marlin_scales(scales: torch.Tensor) -> torch.Tensor:
    """One for each output, ``[outputs, 1]``, as optimum-quanto orders them for its Marlin kernel, ``[1, outputs]``.

    Of 32, pairs that belong to four eights are beside each other.
    """
    return scales.reshape(-1, 4, 4, 2).transpose(1, 2).reshape(-1, 1)

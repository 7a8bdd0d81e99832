"""Values of two or four bits out of bytes, as optimum-quanto packs them."""

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

"""What is said of a device that is too small, with a stand-in for the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qregress.errors import ProduceError
from qregress.produce.shortage import explained

MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free."
)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError(MESSAGE), "2.00 GiB"),
        (RuntimeError("CUDA error: out of memory"), "an unknown size"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "an unknown size"),
    ],
    ids=["torch's allocator", "the driver", "cuBLAS"],
)
def test_the_sizes_are_said(error: RuntimeError, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an allocation that fails, then one line has what was asked for, what is free and what is in the way."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 7 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(name="a GPU"))
    part = torch.nn.Linear(1024, 1024, bias=False)
    pipeline: Any = SimpleNamespace(components={"transformer": part})
    with pytest.raises(ProduceError) as caught, explained("p/int8/w", lambda: [pipeline], "cpu"):
        raise error
    assert str(caught.value) == (
        f"p/int8/w: does not fit in the 8.000 GiB of a GPU: asked for {asked}, free 1.000 GiB, "
        "allocated 7.000 GiB, of it unquantized weights 4.000 MiB"
    )


def test_other_errors_stay_what_they_are() -> None:
    """Given another error, then nothing is said of memory."""
    for error in (ValueError("another"), RuntimeError("CUDA error: an illegal memory access was encountered")):
        with pytest.raises(type(error)) as caught, explained("p/int8/w", list, "cpu"):
            raise error
        assert caught.value is error

"""Out of memory on a CUDA device, with the sizes that did not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline

from qregress import units
from qregress.errors import ProduceError
from qregress.produce.memory import stored
from qregress.produce.variant import modules

#: What is said where memory ran out outside of torch's allocator.
_BESIDE = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@contextmanager
def explained(cell: str, unquantized: Callable[[], Iterable[DiffusionPipeline]], device: str) -> Iterator[None]:
    """Raise ``ProduceError`` with one line for torch's own error; ``unquantized``: what is loaded by then."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _BESIDE)):
            raise
        free, total = torch.cuda.mem_get_info(device)
        held = stored({str(n): part for n, part in enumerate(_parts(unquantized()))}, device)[0]
        asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
        sizes = {
            "asked for": asked.group(1) if asked is not None else "an unknown size",
            "free": units.format_bytes(free),
            "allocated": units.format_bytes(torch.cuda.memory_allocated(device)),
            "of it unquantized weights": units.format_bytes(held),
        }
        name = torch.cuda.get_device_properties(device).name
        told = ", ".join(f"{what} {size}" for what, size in sizes.items())
        raise ProduceError(f"{cell}: does not fit in the {units.format_bytes(total)} of {name}: {told}") from error


def _parts(pipelines: Iterable[DiffusionPipeline]) -> Iterator[torch.nn.Module]:
    for pipeline in pipelines:
        yield from modules(pipeline).values()

"""Which of a component's files are its weights: one variant, and safetensors alone. By names; no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Taken where there is one: half the bytes, and what the reference computes in.
HALF = "fp16"

#: Of another variant, or a whole pipeline in one file, is what has more in its name.
_WEIGHTS = re.compile(r"[^.]+(?:\.(?P<variant>fp16)(?:-\d+-of-\d+)?)?\.safetensors")
_INDEX = re.compile(r"[^.]+\.safetensors\.index(?:\.(?P<variant>fp16))?\.json")


def variant_of(names: Iterable[str]) -> str | None:
    """The variant that is read of a component with these files, ``None`` for the files without one."""
    return HALF if any((found := _WEIGHTS.fullmatch(name)) and found["variant"] for name in names) else None


def weights_of(names: Iterable[str], variant: str | None) -> list[str]:
    """The files with weights of a variant, sorted."""
    return _of(_WEIGHTS, names, variant)


def indices_of(names: Iterable[str], variant: str | None) -> list[str]:
    """The files that say which weights are in which of them."""
    return _of(_INDEX, names, variant)


def is_index(name: str) -> bool:
    """Whether it is such a file, of whatever variant."""
    return ".safetensors.index." in name or name.endswith(".bin.index.json")


def _of(pattern: re.Pattern[str], names: Iterable[str], variant: str | None) -> list[str]:
    return sorted(name for name in names if (found := pattern.fullmatch(name)) and found["variant"] == variant)

"""Backends: one file each, behind the small protocol in ``base.py``. No torch until one is loaded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from qregress.quantize.base import Backend

#: Name in a configuration -> module, and the weight types that it offers.
BACKENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "quanto": ("qregress.quantize.quanto", ("float8", "int8", "int4", "int2")),
}


def weight_types(backend: str) -> tuple[str, ...]:
    """The weight types that a backend offers."""
    return BACKENDS[backend][1]


def load_backend(name: str) -> Backend:
    """Import a backend and what it is built on."""
    return cast("Backend", importlib.import_module(BACKENDS[name][0]).backend())

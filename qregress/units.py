"""Quantities with units, as a configuration writes them and as a report shows them."""

from __future__ import annotations

import re

GIB = 1024**3

_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": GIB, "TiB": 1024**4}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_TINY = 5e-4  # seconds that three decimals would show as none
_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]+)\Z", re.ASCII)


def _parse(text: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.match(text.strip())
    if match is None or match["unit"] not in units:
        raise ValueError(f"expected a number and one of {', '.join(units)}, as in {example!r}, found {text!r}")
    value = float(match["number"]) * units[match["unit"]]
    if not 0 < value < float("inf"):
        raise ValueError(f"expected more than zero and a finite number, found {text!r}")
    return value


def parse_bytes(text: str) -> int:
    """``"5.5 GiB"`` to bytes. Raises ``ValueError`` with one line for anything else."""
    return max(1, round(_parse(text, _BYTES, "5.5 GiB")))


def parse_seconds(text: str) -> float:
    """``"1.6 s"`` to seconds. Raises ``ValueError`` with one line for anything else."""
    return _parse(text, _SECONDS, "1.6 s")


def parse_factor(text: str) -> float:
    """``"0.50x"`` to 0.5. Raises ``ValueError`` with one line for anything else."""
    return _parse(text, {"x": 1.0}, "0.50x")


def is_factor(text: str) -> bool:
    """Whether a limit is relative to the reference (``"0.50x"``)."""
    return text.strip().endswith("x")


def format_bytes(value: int) -> str:
    """Bytes for people: GiB with three decimals; MiB below a tenth of a GiB, where those decimals would hide it."""
    return f"{value / GIB:.3f} GiB" if value >= GIB / 10 else f"{value / 1024**2:.3f} MiB"


def format_seconds(value: float) -> str:
    """Seconds for people, and microseconds of what three decimals would hide, as of a kernel's launch."""
    return f"{value * 1e6:.1f} µs" if 0 < value < _TINY else f"{value:.3f} s"

"""Limits that the user sets: absolute or relative to the reference, for all cells or for some."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from qregress import units


class Limit(msgspec.Struct, frozen=True):
    """One limit: a value in the quantity's own unit, or a factor of the reference's.

    ``device``: a pattern of device classes outside of which an absolute limit does not bind.
    """

    value: float
    relative: bool
    basis: str
    device: str | None = None


#: The worst prompt may be this many times worse than the mean may, unless the budget says otherwise. Over the
#: seven pocket pipelines the worst of eight prompts was 1.5 to 4.0 times the mean LPIPS of healthy settings: the worst
#: then has as much room as the mean's limit leaves the mean, and a limit without room leaves it none.
WORST_FACTOR = 4.0

_FACTOR_OR_BYTES = ("memory", "memory_peak", "disk")
_FACTOR_OR_SECONDS = ("latency", "busy")
_PLAIN = ("lpips", "lpips_worst", "clip_drop", "clip_drop_worst", "latents", "motion", "motion_worst")

_DEVICE = "device"

#: Every key of a budgets table.
FIELDS = (*_PLAIN, *_FACTOR_OR_BYTES, *_FACTOR_OR_SECONDS, _DEVICE)


class Limits(msgspec.Struct, frozen=True):
    """The limits of one table, by key; a key that is not there limits nothing.

    ``lpips``, ``lpips_worst``: distance of the mean and of the worst prompt. ``clip_drop``, ``clip_drop_worst``: how
    much the cosine between image and prompt may fall (a hundredth is one point of CLIP score). ``latents``: mean
    relative L2. ``motion``, ``motion_worst``: relative L2 of what changes from frame to frame of a video. ``memory``,
    ``memory_peak``: bytes or a factor. ``disk``: of the files of a round trip, bytes or a factor of what the same
    components of the reference store. ``latency``, ``busy``: seconds or a factor, of whole calls and of what a CUDA
    device was busy in what was profiled of them. ``device``: a pattern of device classes; the table's limits in bytes
    and seconds bind only there.
    """

    limits: dict[str, Limit]

    @classmethod
    def parse(cls, table: dict[str, Any], origin: str = "budget") -> Limits:
        """From a TOML table; raises ``ValueError`` with one line that names the key."""
        device = table.get(_DEVICE)
        if device is not None and not (isinstance(device, str) and device.strip()):
            raise ValueError(f'{_DEVICE}: expected a text like "cuda-nvidia-h100*", found {device!r}')
        parsed = {name: _parse(name, value, origin) for name, value in table.items() if name != _DEVICE}
        return cls({name: msgspec.structs.replace(limit, device=device) for name, limit in parsed.items()})


class Budgets(msgspec.Struct, frozen=True):
    """Limits for all cells, and narrower ones by pattern."""

    default: Limits
    scoped: dict[str, Limits]

    @staticmethod
    def matches(pattern: str, cell_id: str) -> bool:
        """Whether a shell-style pattern means this cell; ``pipeline`` and ``pipeline/setting`` mean all below them."""
        segments = cell_id.split("/")
        return any(fnmatchcase("/".join(segments[: n + 1]), pattern) for n in range(len(segments)))

    def of(self, cell_id: str) -> dict[str, Limit]:
        """The limits of one cell, key by key: the narrowest table that sets a key wins.

        Narrower means more characters that are no wildcard; between equals the later one wins.
        """
        found = dict(self.default.limits)
        for pattern in sorted(self.scoped, key=lambda text: sum(c not in "*?[]" for c in text)):
            if self.matches(pattern, cell_id):
                found.update(
                    {
                        name: msgspec.structs.replace(limit, basis=f'{limit.basis} "{pattern}"')
                        for name, limit in self.scoped[pattern].limits.items()
                    }
                )
        return found


def _parse(name: str, value: Any, origin: str) -> Limit:
    if name in _PLAIN:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{name}: expected a number from zero, found {value!r}")
        return Limit(float(value), relative=False, basis=origin)
    if not isinstance(value, str):
        unit = "5.5 GiB" if name in _FACTOR_OR_BYTES else "1.6 s"
        raise ValueError(f'{name}: expected a text like "{unit}" or "0.50x", found {value!r}')
    try:
        if units.is_factor(value):
            return Limit(units.parse_factor(value), relative=True, basis=f"{origin} {value}")
        parse = units.parse_bytes if name in _FACTOR_OR_BYTES else units.parse_seconds
        return Limit(float(parse(value)), relative=False, basis=f"{origin} {value}")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

"""A coverage manifest in lines, as of a lock file, and in counts: which kernels, of how many modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from qregress.record import Coverage, CoverageSummary, ModuleCoverage, Record

_COUNTS = ("quantized", "eligible", "modules", "tensors")
_SHOWN = 3


def summarize(manifests: dict[str, Coverage]) -> CoverageSummary | None:
    """Counts only; the module list stays in the record."""
    if not manifests:
        return None
    components: dict[str, dict[str, int | dict[str, int]]] = {}
    for name, manifest in manifests.items():
        components[name] = {
            "quantized": sum(module.found is not None for module in manifest.modules),
            "eligible": sum(module.expected is not None for module in manifest.modules),
            "modules": len(manifest.modules),
            "bytes": sum(module.bytes for module in manifest.modules),
            "tensors": dict(Counter(module.tensor for module in manifest.modules)),
        }
    return CoverageSummary(
        quantized=sum(module.found is not None for m in manifests.values() for module in m.modules),
        eligible=sum(module.expected is not None for m in manifests.values() for module in m.modules),
        components=components,
    )


def changes(before: CoverageSummary, now: CoverageSummary) -> list[str]:
    """What is covered otherwise, component by component; bytes are memory's business."""
    words = []
    for name in sorted(before.components.keys() | now.components.keys()):
        old, new = before.components.get(name, {}), now.components.get(name, {})
        words += [
            f"{name}: {key} were {old.get(key)} and are {new.get(key)}"
            for key in _COUNTS
            if old.get(key) != new.get(key)
        ]
    return words


def lines(manifests: dict[str, Coverage]) -> dict[str, dict[str, str]]:
    """Of each component that a setting names: module -> weight type, tensor class, how scales lie, dtype, bytes."""
    return {
        component: {module.name: _line(module) for module in sorted(manifest.modules, key=lambda module: module.name)}
        for component, manifest in manifests.items()
        if manifest.asked is not None
    }


def _line(module: ModuleCoverage) -> str:
    parts = (module.found or "unquantized", module.tensor, module.packing, module.dtype, f"{module.bytes} B")
    return ", ".join(part for part in parts if part)


def differences(before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """What is covered otherwise, module by module; bytes are memory's business."""
    words = []
    for component in sorted(before.keys() | now.keys()):
        old, new = before.get(component, {}), now.get(component, {})
        moved: dict[str, list[str]] = {}
        for name in sorted(old.keys() | new.keys()):
            was, is_now = _without_bytes(old.get(name)), _without_bytes(new.get(name))
            if was != is_now:
                moved.setdefault(f"{was or 'not there'} -> {is_now or 'gone'}", []).append(name)
        words += [f"{component}: {change}: {some(names)}" for change, names in moved.items()]
    return words


def _without_bytes(line: str | None) -> str | None:
    return line.rpartition(", ")[0] if line is not None else None


def some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def asked(record: Record, key: str) -> Any:
    """What the setting has for a key; ``None`` where that is the default, or not known."""
    return record.asked.setting.get(key) if record.asked is not None else None

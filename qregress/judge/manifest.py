"""A coverage manifest in counts: which kernels, of how many modules."""

from __future__ import annotations

from collections import Counter

from qregress.record import Coverage, CoverageSummary

_COUNTS = ("quantized", "eligible", "modules", "tensors")


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

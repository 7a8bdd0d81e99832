"""The check of kernels: every quantized layer against a product of its weights. It can be accepted away by nobody."""

from __future__ import annotations

import math
from collections import defaultdict

from msgspec import UNSET

from qregress.judge.manifest import asked, some
from qregress.record import Check, LayerFidelity, Record

_SHOWN = 3
_UNFIT = "inputs are not finite, or too large to be squared"
_KERNELS, _ROUNDING = "kernel.fidelity", "rounding in the compute dtype, over each layer's own inputs"
#: Fewest sizes of layers from which a trend is told, and its slope: a forgotten bias has -0.5, sums in float16 0.5.
_SIZES, _SLOPE = 3, 0.3


def fidelity(record: Record) -> Check | None:
    """Every quantized layer returns the product of the weights that it stands for, within the dtype's rounding."""
    if not record.fidelity:
        return None
    layers = [(component, layer) for component, found in record.fidelity.items() for layer in found if layer.tokens]
    unknown = [text for component, found in record.fidelity.items() for text in _unknown(record, component, found)]
    beside = [*_left_out(layers), *_before(record), *never_called(record)]
    if not layers:
        why = "; ".join(["no layer was compared", *beside, *unknown])
        return Check(name=_KERNELS, verdict="void", basis=_ROUNDING, why=why)
    wrong: dict[tuple[str, ...], list[tuple[str, LayerFidelity]]] = defaultdict(list)
    for component, layer in layers:
        if _is_wrong(layer):
            wrong[component, layer.tensor, layer.dtype, layer.kind].append((component, layer))
    component, worst = max(layers, key=lambda each: _finite(each[1].excess))
    sizes = len({(layer.tensor, layer.inputs, layer.outputs, layer.dtype) for _, layer in layers})
    healthy = (
        f"{len(layers)} layers of {sizes} kinds and sizes; nearest to what rounding allows is {component}."
        f"{worst.name}, at {_finite(worst.excess):.2f} of it (relative error {_finite(worst.error):.1e})"
    )
    worst_first = sorted(wrong.items(), key=lambda each: len(each[1]), reverse=True)
    told = [_wrong([layer for _, layer in found], len(layers), *key) for key, found in worst_first[:_SHOWN]]
    if len(wrong) > _SHOWN:
        more = sum(len(found) for _, found in worst_first[_SHOWN:])
        told.append(f"and {len(wrong) - _SHOWN} more kinds of errors, in {more} layers")
    return Check(
        name=_KERNELS,
        verdict="fail" if wrong else "void" if unknown else "pass",
        value=_finite(worst.excess),
        limit=1.0,
        basis=_ROUNDING,
        why="; ".join([*(told or [healthy]), *beside, *unknown]),
    )


def _is_wrong(layer: LayerFidelity) -> bool:
    """A bound or a share of it that is not finite is one that nothing was held against."""
    return bool(layer.where) or not all(map(math.isfinite, (_finite(layer.excess), _finite(layer.bound))))


def never_called(record: Record) -> list[str]:
    """Quantized layers that no call of the pipeline calls as such, so that they are not compared.

    No kernel makes a product of theirs: what a pipeline does not use cannot spoil an image, as a VAE's encoder; or a
    function takes the weight of a layer as a tensor, as Hunyuan DiT's attention pooling does, and it is dequantized.
    """
    told = []
    for component in record.fidelity or {}:
        idle = _idle(record, component)
        if idle:
            told.append(f"{component}: {len(idle)} quantized layers are never called and not compared: {some(idle)}")
    return told


def _idle(record: Record, component: str) -> list[str]:
    """Without projections that were joined to others."""
    manifest = record.coverage.get(component)
    if manifest is None:
        return []
    parts = manifest.joined.values() if manifest.joined is not UNSET else ()
    old = {name for each in parts for name in each}
    return [name for name in manifest.idle if name not in old]


def _unknown(record: Record, component: str, found: tuple[LayerFidelity, ...]) -> list[str]:
    """Quantized layers of a component that are called, and of whose kernel nothing is known."""
    empty = [layer.name for layer in found if not layer.tokens]
    told = []
    if empty:
        told.append(f"{component}: {len(empty)} layers not compared, as all their {_UNFIT}: {some(empty)}")
    if not found and not _idle(record, component):
        told.append(f"{component}: none of its quantized modules is a product that can be compared")
    return told


def _left_out(layers: list[tuple[str, LayerFidelity]]) -> list[str]:
    """Tokens that were not looked at."""
    counts = {f"{component}.{layer.name}": layer.left_out or 0 for component, layer in layers}
    named = [name for name, count in counts.items() if count]
    tokens = sum(counts.values())
    return [f"{tokens} tokens of {len(named)} layers left out, as their {_UNFIT}: {some(named)}"] if named else []


def _before(record: Record) -> list[str]:
    """That other kernels may run: layers are looked at before a pipeline is compiled, or its weights moved about."""
    told = []
    if asked(record, "compile"):
        told.append("compared before compiling: nothing is known of compiled kernels")
    if asked(record, "offload"):
        told.append(f"compared before offload = '{asked(record, 'offload')}' moves weights")
    return told


def _wrong(found: list[LayerFidelity], total: int, component: str, tensor: str, dtype: str, kind: str) -> str:
    """One kind of error of one kernel: where, how large, of what structure."""
    worst = max(found, key=lambda layer: _finite(layer.excess))
    sizes = ", ".join(dict.fromkeys(f"{layer.inputs}x{layer.outputs}" for layer in found[:_SHOWN]))
    trend = _trend(found)
    details = list(dict.fromkeys(layer.detail for layer in found if layer.detail))
    told = ", ".join(filter(None, (kind, some(details), trend)))
    return (
        f"{component}: {len(found)} of {total} layers ({tensor}, {dtype}, {sizes}) multiply wrongly: {told}; relative "
        f"error {_finite(worst.error):.1e}, {_finite(worst.excess):.3g} times what rounding allows "
        f"{worst.where or 'at all'}: {some([layer.name for layer in found])}"
    )


def _trend(found: list[LayerFidelity]) -> str:
    """How the error goes with the number of inputs: by least squares over logarithms."""
    points = [(math.log(layer.inputs), math.log(layer.error)) for layer in found if layer.error]
    if len({x for x, _ in points}) < _SIZES:
        return ""
    middle = [sum(values) / len(points) for values in zip(*points, strict=True)]
    above = sum((x - middle[0]) * (y - middle[1]) for x, y in points)
    slope = above / sum((x - middle[0]) ** 2 for x, _ in points)
    if abs(slope) < _SLOPE:
        return ""
    return f"{'growing' if slope > 0 else 'shrinking'} with the number of inputs"


def _finite(value: float | None) -> float:
    """Infinity for what was not finite, which a file holds as null: it is beyond every limit."""
    return math.inf if value is None or math.isnan(value) else value

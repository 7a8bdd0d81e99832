"""Checks that a setting happened: every module as asked, every kernel right, and files that give the same images.

None of them needs a baseline, and none can be accepted away.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from msgspec import UNSET

from qregress import units
from qregress.errors import nearest
from qregress.judge.budgets import Limit
from qregress.judge.manifest import differences, lines, some
from qregress.judge.noise import K_PROMPT
from qregress.record import Check, Coverage, LayerFidelity, Record

_SHOWN = 3
_UNFIT = "inputs are not finite, or too large to be squared"
_KERNELS, _ROUNDING = "kernel.fidelity", "rounding in the compute dtype, over each layer's own inputs"
#: Unit roundoff: half a unit in the last place. What another order of sums may at least do to latents of a dtype.
_UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
#: Fewest sizes of layers from which a trend is told, and its slope: a forgotten bias has -0.5, sums in float16 0.5.
_SIZES, _SLOPE = 3, 0.3


def coverage(record: Record) -> Check | None:
    """Every module that the setting asks for is quantized as asked, nothing else is, and no original weight is left."""
    manifests = record.coverage
    if not manifests:
        return None
    wrong, quantized, expected = [], 0, 0
    for component, manifest in manifests.items():
        quantized += sum(module.found is not None for module in manifest.modules)
        expected += sum(module.expected is not None for module in manifest.modules)
        wrong += _uncovered(component, manifest, _asked(record, "include"))
    return Check(
        name="coverage.manifest",
        verdict="fail" if wrong else "pass",
        value=float(quantized),
        limit=float(expected),
        basis="the setting",
        why="; ".join(wrong) or f"{quantized} modules quantized as asked",
    )


def _asked(record: Record, key: str) -> Any:
    """What the setting has for a key; ``None`` where that is the default, or not known."""
    return record.asked.setting.get(key) if record.asked is not None else None


def _uncovered(component: str, manifest: Coverage, include: Sequence[str] | None) -> list[str]:
    """What is not as the setting says."""
    names = [module.name for module in manifest.modules]
    wrong = []
    if manifest.asked is not None and not any(module.expected for module in manifest.modules):
        nothing = _outside(names, include) or "none of its modules can be quantized so"
        wrong.append(f"{component}: {manifest.asked} was asked for, but {nothing}")
    wrong += [
        f"pattern '{pattern}' matches no module of {component}; {_near(pattern, names)}"
        for pattern in manifest.unmatched
    ]
    missed: dict[str, list[str]] = {}
    for module in manifest.modules:
        if module.found != module.expected or module.dtype == "missing":
            text = f"{module.found or module.dtype} instead of {module.expected or 'unquantized'}"
            missed.setdefault(text, []).append(module.name)
    total = len(manifest.modules)
    wrong += [
        f"{component}: {len(found)} of {total} modules are {text}: {some(found)}" for text, found in missed.items()
    ]
    wrong += _other_inputs(component, manifest)
    if manifest.joined is not UNSET:
        wrong += _unjoined(component, manifest, manifest.joined)
    if manifest.kept:
        beside = f"{units.format_bytes(manifest.kept_bytes)} beside the quantized ones"
        kept = f"original weights of {len(manifest.kept)} of {total} modules are still in memory, {beside}"
        wrong.append(f"{component}: {kept}: {some(manifest.kept)}")
    return wrong


def _outside(names: list[str], include: Sequence[str] | None) -> str | None:
    """That no pattern of ``include`` matches a module of a component, and one that would; ``None`` where one does."""
    if not include or any(fnmatchcase(name, pattern) for name in names for pattern in include):
        return None
    inside = Counter(name.partition(".")[0] for name in names if "." in name).most_common(1)
    hint = f", such as '{inside[0][0]}.*'" if inside else ""
    return f"no pattern of include matches a module of it: {', '.join(include)}; add one{hint}"


def _other_inputs(component: str, manifest: Coverage) -> list[str]:
    """Modules whose inputs are quantized otherwise than asked; of one that is never called nobody knows a scale."""
    missed: dict[str, list[str]] = {}
    for module in manifest.modules:
        if module.activations is not UNSET and module.name not in manifest.idle:
            expected, found = module.activations
            if expected != found:
                text = f"{found or 'unquantized'} instead of {expected or 'unquantized'}"
                missed.setdefault(text, []).append(module.name)
    total = len(manifest.modules)
    return [
        f"{component}: inputs of {len(found)} of {total} modules are {text}: {some(found)}"
        for text, found in missed.items()
    ]


def _unjoined(component: str, manifest: Coverage, joined: dict[str, tuple[str, ...]]) -> list[str]:
    """Projections that were to be joined: each new one is called, and none of the old ones any more."""
    if not joined:
        return [f"{component}: fuse_qkv was asked for, but no projections were joined"]
    quantized = {module.name for module in manifest.modules if module.found is not None}
    unused = [name for name in joined if name in quantized.intersection(manifest.idle)]
    used = [name for parts in joined.values() for name in parts if name in quantized.difference(manifest.idle)]
    wrong = [f"{component}: {len(unused)} joined projections are never called: {some(unused)}"] if unused else []
    if used:
        wrong.append(f"{component}: {len(used)} projections that were joined are still called: {some(used)}")
    return wrong


def _near(pattern: str, names: list[str]) -> str:
    """The nearest module names only: a full list of modules is no help."""
    if any(fnmatchcase(name, f"{pattern}.*") for name in names):
        return f"did you mean '{pattern}.*'?"
    hint = nearest(pattern, {name.rpartition(".")[2] for name in names} | set(names))
    return hint.partition("?")[0] + "?" if hint.startswith("did") else "no name is near"


def fidelity(record: Record) -> Check | None:
    """Every quantized layer returns the product of the weights that it stands for, within the dtype's rounding."""
    if not record.fidelity:
        return None
    layers = [(component, layer) for component, found in record.fidelity.items() for layer in found if layer.tokens]
    unknown = [text for component, found in record.fidelity.items() for text in _unknown(record, component, found)]
    beside = [*_left_out(layers), *_before(record)]
    if not layers:
        return Check(name=_KERNELS, verdict="void", basis=_ROUNDING, why="; ".join(["no layer was compared", *unknown]))
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


def _unknown(record: Record, component: str, found: tuple[LayerFidelity, ...]) -> list[str]:
    """Quantized layers of a component of whose kernel nothing is known."""
    manifest = record.coverage.get(component)
    parts = manifest.joined.values() if manifest is not None and manifest.joined is not UNSET else ()
    old = {name for each in parts for name in each}
    idle = [name for name in manifest.idle if name not in old] if manifest is not None else []
    empty = [layer.name for layer in found if not layer.tokens]
    told = []
    if idle:
        told.append(f"{component}: {len(idle)} quantized layers are never called and not compared: {some(idle)}")
    if empty:
        told.append(f"{component}: {len(empty)} layers not compared, as all their {_UNFIT}: {some(empty)}")
    if not found and not idle:
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
    if _asked(record, "compile"):
        told.append("compared before compiling: nothing is known of compiled kernels")
    if _asked(record, "offload"):
        told.append(f"compared before offload = '{_asked(record, 'offload')}' moves weights")
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


def roundtrip(record: Record) -> Check | None:
    """What was loaded is what was saved: module by module, bit by bit, and so are its images.

    The images of a cell that repeats itself are then the same bits too, on the same kernels. Where they are not, the
    latents may be as far away as another attention kernel moves those of a single prompt, see ``noise.K_PROMPT``: that
    has steps, guidance and depth in it, which no figure for all pipelines has.
    """
    trip = record.roundtrip
    if not trip:
        return None
    wrong = [trip.message] if trip.message else []
    if not wrong:
        kept = {name: manifest for name, manifest in record.coverage.items() if name in trip.components}
        wrong = [f"loaded otherwise than saved: {text}" for text in differences(lines(kept), lines(trip.loaded))]
    if not wrong and trip.altered:
        wrong.append(f"{len(trip.altered)} parameters and buffers are not the saved bits: {some(trip.altered)}")
    limit = max([_UNIT[trip.dtype], *(K_PROMPT * moved for moved in trip.legal if moved is not None)])
    worst = max(map(_finite, trip.latents), default=0.0)
    if not wrong and not trip.equal and worst > limit:
        wrong.append(f"the same weights moved latents by {worst:.2g} (relative L2), limit {limit:.2g}")
    return Check(
        name="roundtrip.images",
        verdict="fail" if wrong else "pass",
        value=worst if trip.latents else None,
        limit=limit,
        basis=f"{K_PROMPT:g} x what another attention kernel moves, or a rounding of {trip.dtype}",
        why="; ".join(wrong)
        or "the same bits after saving and loading"
        + ("" if trip.equal else f" of the weights, latents within {worst:.2g} of {limit:.2g} (relative L2)"),
    )


def disk(record: Record, reference: Record | None, limit: Limit | None) -> Check | None:
    """Bytes of the files that were saved; relative to what the same components of the reference store."""
    trip = record.roundtrip
    if not trip or trip.message or limit is None:
        return None
    bound = limit.value
    if limit.relative:
        stored = reference.memory.components if reference is not None and reference.memory is not None else {}
        if not trip.components.keys() <= stored.keys():
            why = "the reference was not measured"
            return Check(name="roundtrip.disk", verdict="void", value=trip.disk_bytes, basis=limit.basis, why=why)
        bound *= sum(stored[name] for name in trip.components)
    text = f"{units.format_bytes(trip.disk_bytes)}, limit {units.format_bytes(round(bound))} ({limit.basis})"
    return Check(
        name="roundtrip.disk",
        verdict="fail" if trip.disk_bytes > bound else "pass",
        value=trip.disk_bytes,
        limit=bound,
        basis=limit.basis,
        why=text,
    )

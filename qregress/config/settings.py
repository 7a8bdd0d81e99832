"""One ``[settings.NAME]`` to a ``Setting``: what a backend does not offer is said before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast, get_args

from qregress.config.tables import SettingTable
from qregress.errors import nearest
from qregress.matrix import REFERENCE, ROLES, Against, DType, Offload, Setting, Training
from qregress.quantize import BACKENDS, BackendInfo

DTYPES: tuple[str, ...] = get_args(DType)

Fail = Callable[[str, str], NoReturn]


def read_setting(name: str, table: SettingTable, fail: Fail) -> Setting:
    """Validate one table. ``fail`` takes a key and what is wrong with it, and raises."""
    key = f"settings.{name}"
    if name == REFERENCE:
        fail(key, f"'{REFERENCE}' is the unquantized run that every pipeline has; choose another name")
    _allowed(fail, f"{key}.backend", "backend", table.backend, BACKENDS)
    if not table.weights:
        fail(f"{key}.weights", 'empty; name a component and a weight type, as in { transformer = "int8" }')
    backend = BACKENDS[table.backend]
    for component, kind in table.weights.items():
        _allowed(fail, f"{key}.weights.{component}", "weight type", kind, backend.weights)
    _allowed(fail, f"{key}.dtype", "dtype", table.dtype, DTYPES)
    _allowed(fail, f"{key}.reference", "reference", table.reference, get_args(Against))
    _allowed(fail, f"{key}.offload", "offload", table.offload, get_args(Offload))
    for kind in table.weights.values():
        _computed(f"{key}.dtype", table, kind, backend, fail)
    _activations(key, table, backend, fail)
    _together(key, table, fail)
    _trained(f"{key}.qat", table.qat, fail)
    _offered(key, table, backend, fail)
    return Setting(
        name=name,
        weights=table.weights,
        activations=table.activations,
        calibration=table.calibration,
        include=tuple(table.include),
        exclude=tuple(table.exclude),
        dtype=cast("DType", table.dtype),
        reference=cast("Against", table.reference),
        fuse_qkv=table.fuse_qkv,
        offload=cast("Offload", table.offload),
        compile=table.compile,
        roundtrip=table.roundtrip,
        qat=table.qat,
        backend=table.backend,
        pipelines=tuple(table.pipelines),
    )


def _allowed(fail: Fail, key: str, what: str, found: Any, allowed: Iterable[str]) -> None:
    names = tuple(allowed)
    if found not in names:
        fail(key, f"unknown {what} '{found}'; {nearest(str(found), names)}")


def _activations(key: str, table: SettingTable, backend: BackendInfo, fail: Fail) -> None:
    """Of components whose weights are quantized too, of a type that the backend has beside theirs."""
    if table.activations and not backend.activations:
        able = ", ".join(name for name, info in BACKENDS.items() if info.activations)
        fail(f"{key}.activations", f"backend '{table.backend}' quantizes weights only; these quantize both: {able}")
    for component, kind in table.activations.items():
        here = f"{key}.activations.{component}"
        _allowed(fail, here, "activation type", kind, backend.activations)
        weights = table.weights.get(component)
        if weights is None and not _covers(table, component):
            fail(here, f"its weights are not quantized; {nearest(component, table.weights)}")
        if weights is not None and not backend.mixed and weights != kind:
            fail(here, f"backend '{table.backend}' has activations of the weights' type only: expected '{weights}'")
    if table.calibration < 1:
        fail(f"{key}.calibration", f"expected one prompt or more, found {table.calibration}")


def _covers(table: SettingTable, component: str) -> bool:
    """Whether a role stands for it, or it is one: which components those are is known with the pipeline."""
    return not table.weights.keys().isdisjoint(ROLES) or component in ROLES


def _offered(key: str, table: SettingTable, backend: BackendInfo, fail: Fail) -> None:
    """What only some backends can do."""
    asked = {
        "include": (bool(table.include), backend.include, "cannot be told which modules to quantize; use exclude"),
        "fuse_qkv": (table.fuse_qkv, backend.fuses, "quantizes while loading, and fusing must come before"),
        "roundtrip": (table.roundtrip, backend.saver is not None, "has no way to save what it quantized"),
        "qat": (table.qat is not None, backend.trains, "cannot be trained through"),
    }
    for name, (wanted, able, why) in asked.items():
        if wanted and not able:
            fail(f"{key}.{name}", f"backend '{table.backend}' {why}")


def _computed(key: str, table: SettingTable, kind: str, backend: BackendInfo, fail: Fail) -> None:
    """In a dtype that the weight type's kernel has."""
    able = backend.dtypes.get(kind, DTYPES)
    if table.dtype not in able:
        what = f"backend '{table.backend}' computes {kind} weights in {' or '.join(able)} alone, not in {table.dtype}"
        fail(key, f'{what}; set dtype = "{able[0]}"')


def _together(key: str, table: SettingTable, fail: Fail) -> None:
    """What cannot be asked for at once."""
    offload = f"offload = '{table.offload}'"
    if table.compile and table.offload != "none":
        fail(f"{key}.compile", f"with {offload} weights move between calls; use one of the two")
    if table.activations and table.fuse_qkv and table.backend == "quanto":
        fail(f"{key}.fuse_qkv", "with activations quanto cannot split what a joined projection returns; leave one out")
    if table.roundtrip and table.offload != "none":
        fail(f"{key}.roundtrip", f"with {offload} weights are not where they could be saved from; use one of the two")
    if table.roundtrip and table.compile:
        why = "what is loaded is not compiled, and its images would be compared with those of other kernels"
        fail(f"{key}.roundtrip", f"{why}; use a setting for each, with and without compile")


def _trained(key: str, training: Training | None, fail: Fail) -> None:
    if training is None:
        return
    if min(training.steps, training.prompts) < 1:
        fail(key, f"expected one step and one prompt or more, found {training.steps} and {training.prompts}")
    if training.rate is not None and not 0 < training.rate < math.inf:
        fail(f"{key}.rate", f"expected a number above zero, found {training.rate}; leave it out for one that suits")

"""Backends: one file each, behind the small protocol in ``base.py``. No torch until one is loaded."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, cast

import msgspec

from qregress.errors import ConfigError

if TYPE_CHECKING:
    from qregress.quantize.base import Backend, Saver


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend offers, known without its library.

    ``module``: of this package. ``package``: what it imports, and ``extra``: the extra of qregress that installs it,
    ``None`` where every installation has it. ``weights`` and ``activations``: types by the names of a configuration.
    ``mixed``: whether activations may be of another type than the weights. ``calibrates``: whether scales of
    activations are set by running the pipeline, else each call works its own out. ``include``: whether a setting can
    name the modules to quantize, beside those to leave. ``fuses``: whether it quantizes a model in memory, so that
    projections can be joined before. ``saver``: the class that saves and loads what it quantized, ``None`` where there
    is none. ``trains``: whether a model can be trained under its quantization. ``dtypes``: weight type -> the compute
    dtypes that its kernels have, where not all.
    """

    module: str
    package: str
    weights: tuple[str, ...]
    activations: tuple[str, ...] = ()
    mixed: bool = False
    calibrates: bool = False
    include: bool = True
    fuses: bool = True
    saver: tuple[str, str] | None = None
    trains: bool = False
    extra: str | None = None
    dtypes: dict[str, tuple[str, ...]] = {}


#: Name in a configuration -> what it is.
BACKENDS: dict[str, BackendInfo] = {
    "quanto": BackendInfo(
        module="qregress.quantize.quanto",
        package="optimum.quanto",
        weights=("float8", "float8_e4m3fnuz", "float8_e5m2", "int8", "int4", "int2"),
        activations=("float8", "float8_e4m3fnuz", "float8_e5m2", "int8"),
        mixed=True,
        calibrates=True,
        saver=("qregress.quantize.quanto_files", "QuantoFiles"),
        trains=True,
    ),
    "diffusers": BackendInfo(
        module="qregress.quantize.diffusers",
        package="diffusers",
        weights=("float8", "int8", "int4", "int2"),
        include=False,
        fuses=False,
        saver=("qregress.quantize.diffusers", "DiffusersFiles"),
    ),
    "torchao": BackendInfo(
        module="qregress.quantize.torchao",
        package="torchao",
        weights=("float8", "int8", "int4"),
        activations=("float8", "int8"),
        extra="torchao",
        dtypes={"int4": ("bfloat16",)},
    ),
    "bitsandbytes": BackendInfo(
        module="qregress.quantize.bitsandbytes",
        package="bitsandbytes",
        weights=("int8", "nf4", "fp4"),
        extra="bitsandbytes",
    ),
    "layerwise": BackendInfo(
        module="qregress.quantize.layerwise",
        package="diffusers",
        weights=("float8", "float8_e5m2"),
    ),
}


def weight_types(backend: str) -> tuple[str, ...]:
    """The weight types that a backend offers."""
    return BACKENDS[backend].weights


def load_backend(name: str) -> Backend:
    """Import a backend and what it is built on. Raises ``ConfigError`` where its package is not installed."""
    lacks = missing(name)
    if lacks is not None:
        raise ConfigError(lacks)
    return cast("Backend", importlib.import_module(BACKENDS[name].module).backend())


def load_saver(name: str) -> Saver:
    """What saves and loads the components that a backend quantized. Raises ``ConfigError`` where there is none."""
    saver = BACKENDS[name].saver
    if saver is None:
        raise ConfigError(f"backend '{name}' has no way to save what it quantized")
    module, kind = saver
    return cast("Saver", getattr(importlib.import_module(module), kind)())


def missing(name: str) -> str | None:
    """What to install for a backend, in one line; ``None`` where it is there."""
    info = BACKENDS[name]
    if _is_installed(info.package):
        return None
    what = "qregress" if info.extra is None else f"qregress[{info.extra}]"
    return f"backend '{name}' needs the {info.package} package: pip install '{what}'"


def _is_installed(package: str) -> bool:
    """Looked for, not imported: a package that is there and cannot be imported shall say why itself."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False

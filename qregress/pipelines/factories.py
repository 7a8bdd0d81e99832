"""``factory:NAME``: functions registered with ``@qregress.pipeline``, as pipelines, and found again in a worker."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from qregress import registry
from qregress.errors import ConfigError, FactoryError, nearest, typed_line
from qregress.matrix import DEVICES, NAME, Factory, Pipeline
from qregress.pipelines import testpaths
from qregress.pipelines.folder import Source

#: Entry points of installed packages, ``module:function`` each.
GROUP = "qregress.pipelines"
#: A conftest.py without any has no factory, and ``qregress run`` need not import it.
_SPEAKS_OF_FACTORIES = re.compile(r"qregress\.pipeline\b|\bqregress\b[\s\S]*\bpipeline\(")


class Made(Source, frozen=True, kw_only=True):
    """A registered function that was found. ``origin`` names it in messages; ``components`` is what it says it has."""

    origin: str
    function: Callable[..., Any]
    components: tuple[str, ...] | None


def registered() -> tuple[Pipeline, ...]:
    """All registered factories, those of installed packages too, as pipelines; none of them is called.

    Raises ``ConfigError`` with one line for what is wrong with a registration.
    """
    _load_entry_points()
    found: dict[str, registry.Registration] = {}
    for registration in registry.registered():
        _check(registration)
        other = found.get(registration.name)
        if other is not None and not registration.repeats(other):
            raise ConfigError(
                f"pipeline '{registration.name}' is registered twice, in {other.where}, and in {registration.where}; "
                "choose another name for one of them"
            )
        found[registration.name] = registration
    search = tuple(str(Path(entry).absolute()) for entry in sys.path if isinstance(entry, str))
    return tuple(_pipeline(registration, search) for registration in found.values())


def find(pipeline: Pipeline) -> Made:
    """The function of a pipeline, its module imported again where this process has not registered it.

    Raises ``FactoryError`` where that import fails or does not register it.
    """
    factory = pipeline.factory
    assert factory is not None  # noqa: S101 - for the type checker; the caller looked
    if not _named(pipeline.name):
        sys.path[:] = [*factory.search, *(entry for entry in sys.path if entry not in factory.search)]
        try:
            _import_again(factory)
        except Exception as error:
            raise FactoryError(f"{factory.file}: cannot be imported by the worker: {typed_line(error)}") from error
    found = _named(pipeline.name)
    if not found:
        raise FactoryError(
            f"{factory.file}: registers no pipeline '{pipeline.name}' when the worker imports it; "
            "register it whatever the process is"
        )
    registration = found[-1]
    return Made(
        origin=f"factory '{pipeline.name}' ({registration.where})",
        function=registration.function,
        components=factory.components,
        call=dict(registration.call or {}),
        trained=registration.trained,
    )


def import_conftest(folder: Path) -> None:
    """Register the factories of a folder's conftest.py without pytest, whose hooks and options stay unknown.

    Does nothing where there is none, or it speaks of no factories. Raises ``ConfigError`` where it cannot be imported.
    """
    path = folder / "conftest.py"
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not _SPEAKS_OF_FACTORIES.search(text):
            return
        root, _ = _package(folder)
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        _import_file(path)
    except Exception as error:
        raise ConfigError(f"{path}: cannot be imported: {typed_line(error)}") from error


def of_folder(folder: Path) -> tuple[Pipeline, ...]:
    """Those that a run in this folder would have; nothing stays registered. Raises as ``registered`` does."""
    with registry.scope():
        for each in testpaths.folders(folder):
            import_conftest(each)
        return registered()


def _load_entry_points() -> None:
    """Register what entry points name, and nothing else that their modules may register, as only once they would."""
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        where = f"entry point '{entry.name} = {entry.value}' of {GROUP}"
        try:
            with registry.scope():
                function = entry.load()
        except Exception as error:
            raise ConfigError(f"{where}: cannot be imported: {typed_line(error)}") from error
        found = registry.registrations_of(function)
        if not found:
            raise ConfigError(f"{where}: is no registered function; name one that has @qregress.pipeline(...)")
        registry.add(found)


def _check(registration: registry.Registration) -> None:
    """All that can be wrong with one registration."""
    name, where = registration.name, registration.where
    if not isinstance(name, str) or not NAME.match(name):
        found = (
            "has no name" if name is None else f"has the name {name!r}, not one of letters, digits, '.', '_', '+', '-'"
        )
        raise ConfigError(f'{where}: a registered pipeline {found}; write @qregress.pipeline("name")')
    start = f"{where}: pipeline '{name}':"
    if registration.file is None:
        raise ConfigError(
            f"{start} was not registered by importing a file; a worker could not find it: do so on import"
        )
    if not callable(registration.function):
        raise ConfigError(f"{start} registers {type(registration.function).__name__}; expected a function")
    for key, value in (("components", registration.components), ("devices", registration.devices)):
        texts = isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
        if not texts and not (key == "components" and value is None):
            raise ConfigError(f'{start} {key}: expected a list of texts, as in ["cpu"], found {value!r}')
        if not value and value is not None:
            raise ConfigError(f"{start} {key}: empty; name at least one, or leave it out")
    for device in registration.devices:
        if device not in DEVICES:
            raise ConfigError(f"{start} devices: unknown device '{device}'; {nearest(device, DEVICES)}")
    if registration.call is not None and not isinstance(registration.call, dict):
        raise ConfigError(f"{start} call: expected a dict of arguments, found {type(registration.call).__name__}")


def _pipeline(registration: registry.Registration, search: tuple[str, ...]) -> Pipeline:
    components = registration.components
    return Pipeline(
        name=registration.name,
        source=f"factory:{registration.name}",
        devices=tuple(registration.devices),
        factory=Factory(
            module=registration.module,
            file=str(registration.file),
            search=search,
            components=tuple(components) if components is not None else None,
        ),
    )


def _named(name: str) -> list[registry.Registration]:
    return [registration for registration in registry.registered() if registration.name == name]


def _import_again(factory: Factory) -> None:
    """By its name where that means this file, as then it is one module for all that import it; else by its path."""
    try:
        spec = importlib.util.find_spec(factory.module)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(factory.file):
        importlib.import_module(factory.module)
    else:
        _import_file(Path(factory.file))


def _import_file(path: Path) -> None:
    """Under a name that no other module has: there are many modules called conftest."""
    _, package = _package(path.parent)
    private = f"_qregress_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    name = f"{package}.{private}" if package else private  # for relative imports
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _package(folder: Path) -> tuple[Path, str]:
    """The folder that has to be on the import path, and the package that ``folder`` is: as pytest sees it."""
    names: list[str] = []
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(names)

"""All probes, in the order in which they are shown, and what follows from them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qregress import config as configuration
from qregress._version import __version__
from qregress.config import Config
from qregress.doctor import abilities, compilers, devices, hub, matrix, packages, weights
from qregress.doctor.facts import Cells, Diagnosis, Fact, Section
from qregress.doctor.matrix import Needs
from qregress.errors import QregressError
from qregress.pipelines import factories

_USAGE_ERROR = 4
_UNREADABLE = "configuration"


def examine(path: Path) -> Diagnosis:
    """Look at this machine with one configuration in mind. Takes some seconds: torch and quanto are imported."""
    with _quiet():
        loaded = _load(path)
        cells, sections = _look(loaded)
    problems = tuple(
        fact.name for section in sections for fact in section.facts if fact.state == "missing" and not fact.cause
    )
    readable = isinstance(loaded, Config)
    return Diagnosis(
        qregress=__version__,
        sections=sections,
        cells=cells,
        problems=problems,
        verdict=_verdict(cells, problems, sections, matrix.title(path) if readable else ""),
        code=_USAGE_ERROR if not readable else int(bool(problems)),
    )


def _load(path: Path) -> Config | QregressError:
    try:
        return configuration.load(path, factories.of_folder(Path.cwd()))
    except QregressError as error:
        return error


def _look(loaded: Config | QregressError) -> tuple[Cells, tuple[Section, ...]]:
    config = loaded if isinstance(loaded, Config) else None
    asked = matrix.needs(config) if config is not None else Needs()
    sections = [Section("python and libraries", packages.libraries())]
    cache = hub.scan()
    found: list[abilities.Ability] = []
    broken = devices.import_torch()
    if broken is not None:
        sections.append(Section("devices", (broken,)))
    else:
        machine, facts = devices.devices(cuda_only=asked.cuda_only)
        sections.append(Section("devices", facts))
        kinds = list(dict.fromkeys(device.kind for device in machine))
        quanto = {kind: types for (backend, kind), types in asked.weights.items() if backend == "quanto"}
        sections.append(Section("compilers", compilers.compilers(quanto, kinds)))
        found = abilities.abilities(machine, asked.weights)
        sections.append(Section("weight types", abilities.facts(found, asked.weights)))
        scored = config.metrics if config is not None else None
        sections.append(Section("metric weights", weights.weights(scored, cache)))
    sections += [Section("cached models", (hub.fact(cache),)), Section("pytest plugins", packages.plugins())]
    if config is None:
        cells, facts = Cells(), (Fact(name=_UNREADABLE, state="missing", detail=str(loaded), named=True),)
    else:
        cells, facts = matrix.without_torch(config) if broken is not None else matrix.examine(config, found)
    return cells, (*sections, Section("configuration", facts))


def _verdict(cells: Cells, problems: tuple[str, ...], sections: tuple[Section, ...], title: str) -> str:
    """The last line."""
    able = (
        f"{cells.here} of {cells.total} cells of {title} can run here" if title else "the configuration cannot be read"
    )
    if problems:
        return f"{len(problems)} problem{'s' * (len(problems) > 1)}: {', '.join(problems)}; {able}"
    first = [f"{fact.name} ({fact.cost})" for section in sections for fact in section.facts if fact.state == "later"]
    return f"ready: {able}" + (f"; the first run gets {', '.join(first)}" if first else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """What libraries log and warn of on import, such as a machine without CUDA, is said here in order."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

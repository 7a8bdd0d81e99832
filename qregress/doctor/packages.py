"""Python, libraries and pytest plugins, from the metadata of what is installed. Nothing is imported."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from qregress.doctor.facts import Fact

_PACKAGE = "qregress"


def libraries() -> tuple[Fact, ...]:
    """Python and what qregress requires, each against the versions that its own metadata allows."""
    try:
        python = str(metadata.metadata(_PACKAGE)["Requires-Python"] or "")
        required = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        how = "pip install -e . in its repository"
        return (Fact(name=_PACKAGE, state="missing", detail="imported, but not installed", how=how, named=True),)
    used = sorted(
        (each for each in required if each.marker is None or each.marker.evaluate({"extra": ""})),
        key=lambda each: each.name.lower(),
    )
    return (_python(SpecifierSet(python)), *(_library(each) for each in used))


def _python(allowed: SpecifierSet) -> Fact:
    version = platform.python_version()
    if allowed.contains(version, prereleases=True):
        return Fact(name="python", state="ok", detail=_beside(version, allowed), named=True)
    how = f"make an environment with Python {allowed}"
    return Fact(name="python", state="missing", detail=_beside(version, allowed), how=how, named=True)


def _library(required: Requirement) -> Fact:
    """A distribution that is there in an allowed version, or what is wrong with it."""
    name = required.name
    how = f"pip install '{name}{required.specifier}'"
    try:
        version = metadata.version(name)
        fits = required.specifier.contains(Version(version), prereleases=True)
    except metadata.PackageNotFoundError:
        return Fact(
            name=name, state="missing", detail=f"not installed (needs {required.specifier})", how=how, named=True
        )
    except (InvalidVersion, TypeError):  # what a broken installation leaves
        how = f"pip install --force-reinstall '{name}{required.specifier}'"
        return Fact(name=name, state="missing", detail="installed, but its version cannot be read", how=how, named=True)
    detail = _beside(version, required.specifier)
    if fits:
        return Fact(name=name, state="ok", detail=detail, named=True)
    return Fact(name=name, state="missing", detail=f"{detail}: too old or not allowed", how=how, named=True)


def _beside(version: str, allowed: SpecifierSet) -> str:
    return f"{version} (needs {allowed})" if str(allowed) else version


def plugins() -> tuple[Fact, ...]:
    """The pytest plugins that pytest would load here."""
    found = {
        entry.dist.name: entry.dist.version
        for entry in metadata.entry_points(group="pytest11")
        if entry.dist is not None
    }
    others = ", ".join(f"{name} {found[name]}" for name in sorted(found) if name not in {_PACKAGE, "pytest-xdist"})
    return (_own(found), _xdist(found), Fact(name="others", state="ok", detail=others or "none"))


def _own(found: dict[str, str]) -> Fact:
    cost = "pytest does not know qregress_cell; `qregress run` does not need it"
    if _PACKAGE not in found:
        detail, how = "not among pytest's plugins", "pip install -e . in its repository, or pytest -p qregress.plugin"
    elif os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        detail, how = "PYTEST_DISABLE_PLUGIN_AUTOLOAD is set", "unset it, or pytest -p qregress.plugin"
    else:
        return Fact(name=_PACKAGE, state="ok", detail=found[_PACKAGE])
    return Fact(name=_PACKAGE, state="absent", detail=detail, cost=cost, how=how)


def _xdist(found: dict[str, str]) -> Fact:
    if "pytest-xdist" in found:
        return Fact(name="pytest-xdist", state="ok", detail=found["pytest-xdist"])
    cost = "no pytest -n; cells take turns on a device with it, too"
    return Fact(name="pytest-xdist", state="absent", detail="not installed", cost=cost, how="pip install pytest-xdist")

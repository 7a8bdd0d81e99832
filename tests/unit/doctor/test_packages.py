"""Versions and plugins, from metadata that lies on the import path."""

from __future__ import annotations

from pathlib import Path

import pytest

from qregress.doctor import Fact, packages


def install(folder: Path, name: str, version: str, *lines: str, plugin: str = "") -> None:
    """Metadata of a distribution, as pip writes it."""
    path = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    path.mkdir()
    text = ["Metadata-Version: 2.1", f"Name: {name}", *([f"Version: {version}"] if version else []), *lines]
    (path / "METADATA").write_text("\n".join(text) + "\n")
    if plugin:
        (path / "entry_points.txt").write_text(f"[pytest11]\n{plugin} = {plugin}\n")


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of the import path, whose metadata comes before what is installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def fact(facts: tuple[Fact, ...], name: str) -> Fact:
    """The fact of that name."""
    return next(each for each in facts if each.name == name)


def test_what_is_installed() -> None:
    """Given this environment, then Python, torch and quanto are there, and nothing for tests alone is asked for."""
    facts = packages.libraries()
    assert [each for each in facts if each.state != "ok"] == []
    assert {"python", "torch", "optimum-quanto"} <= {each.name for each in facts}
    assert "hypothesis" not in {each.name for each in facts}


def test_too_old(first: Path) -> None:
    """Given an old library, then it is missing, and the command that replaces it is told."""
    install(first, "torchmetrics", "1.0")
    found = fact(packages.libraries(), "torchmetrics")
    assert (found.state, found.how) == ("missing", "pip install 'torchmetrics>=1.4'")
    assert found.detail == "1.0 (needs >=1.4): too old or not allowed"


def test_not_installed(first: Path) -> None:
    """Given a requirement that nothing meets, then it is missing; a marker that does not hold asks for nothing."""
    requires = ("Requires-Dist: no-such-thing>=3", 'Requires-Dist: nor-this; extra == "test"')
    install(first, "qregress", "0.1.0", "Requires-Python: >=99", *requires)
    facts = packages.libraries()
    assert [(each.name, each.state) for each in facts] == [("python", "missing"), ("no-such-thing", "missing")]
    assert facts[0].how == "make an environment with Python >=99"
    assert facts[1].detail == "not installed (needs >=3)"


@pytest.mark.parametrize("version", ["", "not-a-version"])
def test_broken_metadata(version: str, first: Path) -> None:
    """Given metadata without a version, or with one that is none, then that is said, not raised."""
    install(first, "torchmetrics", version)
    found = fact(packages.libraries(), "torchmetrics")
    assert (found.state, found.detail) == ("missing", "installed, but its version cannot be read")
    assert found.how == "pip install --force-reinstall 'torchmetrics>=1.4'"


def test_plugins(first: Path) -> None:
    """Given one more plugin, then it is listed with its version; ours is there."""
    install(first, "pytest-of-mine", "7.1", plugin="mine")
    facts = packages.plugins()
    assert "pytest-of-mine 7.1" in fact(facts, "others").detail
    assert fact(facts, "qregress").state == "ok"
    assert fact(facts, "pytest-xdist").state == "ok"


def test_plugins_that_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the variable that keeps pytest from loading plugins, then that is said; it is no problem of a run's."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    found = fact(packages.plugins(), "qregress")
    assert (found.state, found.detail) == ("absent", "PYTEST_DISABLE_PLUGIN_AUTOLOAD is set")
    assert found.how.startswith("unset it")

"""Folders whose conftest.py pytest reads at its start, without starting pytest."""

from __future__ import annotations

import configparser
import shlex
import tomllib
from pathlib import Path
from typing import Any

#: pytest's configuration, the first that there is: a file -> where in it.
_INI = {"pytest.ini": "pytest", ".pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}
_ORDER = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


def folders(root: Path) -> tuple[Path, ...]:
    """The folder itself, those right below it and those in ``testpaths``, with the folders on the way to them."""
    found = dict.fromkeys((root, *(path.parent for path in sorted(root.glob("[!.]*/conftest.py")))))
    for pattern in _testpaths(root):
        for path in sorted(root.glob(pattern)) if pattern and not Path(pattern).is_absolute() else ():
            folder = path if path.is_dir() else path.parent
            between = [parent for parent in folder.parents if root in parent.parents]
            found |= dict.fromkeys((*reversed(between), folder))
    return tuple(found)


def _testpaths(root: Path) -> list[str]:
    """As written; nothing where a file cannot be read, which pytest itself has a line for."""
    for name in _ORDER:
        try:
            table = _table(root / name)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, configparser.Error):
            return []
        if table is not None:
            asked = table.get("testpaths", [])
            return shlex.split(asked) if isinstance(asked, str) else [str(each) for each in asked]
    return []


def _table(path: Path) -> dict[str, Any] | None:
    """What a file says to pytest; ``None`` where it says nothing."""
    if not path.is_file():
        return None
    if path.suffix == ".toml":
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.name.endswith("pytest.toml"):
            return dict(read.get("pytest", {}))
        tool = read.get("tool", {}).get("pytest")
        return None if tool is None else dict(tool.get("ini_options", tool))
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(path.read_text(encoding="utf-8"))
    if parser.has_section(_INI[path.name]):
        return dict(parser[_INI[path.name]])
    return {} if path.name.endswith("pytest.ini") else None

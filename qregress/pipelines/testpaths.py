"""Folders whose conftest.py pytest reads at its start, without starting pytest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: pytest's configuration, the first of these that there is.
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
    for path in (root / name for name in _ORDER):
        if not path.is_file():
            continue
        # Private, and what says which of these files are pytest's; here, as most verbs need nothing of pytest.
        from _pytest.config.exceptions import UsageError
        from _pytest.config.findpaths import load_config_dict_from_file

        try:
            table: Mapping[str, Any] | None = load_config_dict_from_file(path)
        except UsageError:
            return []
        if table is not None:
            asked = table.get("testpaths", [])
            asked = getattr(asked, "value", asked)  # since pytest 9
            return shlex.split(asked) if isinstance(asked, str) else [str(each) for each in asked]
    return []

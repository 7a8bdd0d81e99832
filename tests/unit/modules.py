"""Modules made of a text, for tests of what happens on import."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_text(folder: Path, name: str, text: str) -> ModuleType:
    """Write a module and import it anew; its folder must be on the import path, or is put there."""
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.write_text(text, encoding="utf-8")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)

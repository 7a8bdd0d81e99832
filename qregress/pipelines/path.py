"""``path:FOLDER``: a local Diffusers folder."""

from __future__ import annotations

from pathlib import Path

from qregress.errors import ConfigError
from qregress.pipelines.folder import Folder, inspect


def find(rest: str) -> Folder:
    """The folder, checked."""
    if not rest:
        raise ConfigError("path: names no folder; write path:FOLDER")
    path = Path(rest)
    found = inspect(path, {})
    return Folder(path=path, class_name=found.class_name, kinds=found.kinds, components=found.components)

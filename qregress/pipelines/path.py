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
    class_name, components = inspect(path, {})
    return Folder(path=path, class_name=class_name, components=components)

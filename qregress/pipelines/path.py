"""``path:FOLDER``: a local Diffusers folder."""

from __future__ import annotations

from pathlib import Path

from qregress.errors import ConfigError
from qregress.pipelines.folder import Folder, Index, inspect


def find(rest: str) -> Folder:
    """The folder, checked."""
    if not rest:
        raise ConfigError("path: names no folder; write path:FOLDER")
    path = Path(rest)
    return of_folder(path, inspect(path, {}))


def of_folder(path: Path, index: Index) -> Folder:
    """A folder without shared parts that has been inspected."""
    return Folder(
        path=path,
        class_name=index.class_name,
        kinds=index.kinds,
        components=index.components,
        variant=index.variant,
    )

"""``pocket:NAME``: small trained pipelines inside the package, assembled from their own and shared folders."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from qregress.errors import ConfigError, SourceError, nearest
from qregress.pipelines.folder import Folder, inspect, read_json


def zoo() -> Path:
    """The folder of all pocket pipelines."""
    return Path(str(resources.files("qregress") / "zoo"))


def names() -> list[str]:
    """All pocket pipelines."""
    return sorted(path.parent.name for path in zoo().glob("*/pocket.json"))


def find(rest: str) -> Folder:
    """The files of one pocket pipeline, checked."""
    if rest not in names():
        raise ConfigError(f"unknown pocket pipeline '{rest}'; {nearest(rest, names())}")
    path = zoo() / rest
    sheet = read_json(path / "pocket.json")
    try:
        shared = {name: zoo() / "shared" / folder for name, folder in sheet["shared"].items()}
        call, trained = dict(sheet["call"]), bool(sheet["trained"])
    except (KeyError, TypeError, AttributeError):
        raise SourceError(f"{path / 'pocket.json'}: expected the keys shared, call and trained") from None
    found = inspect(path, shared)
    return Folder(
        path=path,
        class_name=found.class_name,
        kinds=found.kinds,
        components=tuple(sorted({*found.components, *shared})),
        shared=shared,
        call=call,
        trained=trained,
        default_devices=("cpu", "cuda"),
    )

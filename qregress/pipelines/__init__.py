"""Where a pipeline comes from: one module per source, behind ``check`` and ``load``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from qregress.errors import ConfigError, nearest
from qregress.matrix import Pipeline
from qregress.pipelines import architecture, factories, hub, path, pocket
from qregress.pipelines.architecture import Architecture
from qregress.pipelines.factories import registered
from qregress.pipelines.folder import Described, Folder, Source

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["SOURCES", "builtin_prompts", "check", "components", "find", "load", "registered"]

#: Scheme of a source -> what finds a pipeline there.
SOURCES: dict[str, Callable[[str], Described]] = {
    "pocket": pocket.find,
    "path": path.find,
    "random": architecture.find,
    "hub": hub.find,
}


def check(source: str) -> Described:
    """Find a pipeline and check that its files are whole, without loading a model or fetching one.

    Raises ``ConfigError`` for a source that does not exist or a pipeline without a denoiser, ``SourceError`` for files
    that are missing or truncated.
    """
    scheme, separator, rest = source.partition(":")
    if not separator or scheme not in SOURCES:
        named = f"'{scheme}:'" if separator else f"'{source}', which has no scheme"
        if not separator and source.count("/") == 1:
            named += f" (a repository of a hub is hub:{source}@REVISION)"
        raise ConfigError(f"unknown source {named}; {nearest(scheme, SOURCES)}, as in pocket:pixart-sigma")
    found = SOURCES[scheme](rest)
    _ = found.family  # raises where it has none
    return found


def find(pipeline: Pipeline) -> Described | factories.Made:
    """What a pipeline is loaded from: its files or architecture, checked, or its function. Raises as all of them do."""
    return whole(check(pipeline.source)) if pipeline.factory is None else factories.find(pipeline)


def whole(found: Described) -> Described:
    """The same with all of its files on this machine. Raises ``SourceError`` where they cannot be fetched."""
    return hub.fetch(found) if isinstance(found, hub.Repository) else found


def components(pipeline: Pipeline) -> tuple[str, ...] | None:
    """The components that settings may quantize; ``None`` where that is not known before it is loaded."""
    return check(pipeline.source).components if pipeline.factory is None else pipeline.factory.components


def load(source: str | Source, dtype: str, device: str) -> DiffusionPipeline:
    """Load or build a pipeline on a device. ``dtype``: the compute dtype of all but the VAE (see ``assemble.py``)."""
    from qregress.pipelines.assemble import load_architecture, load_folder, load_made

    found: Source = whole(check(source)) if isinstance(source, str) else source
    if isinstance(found, Folder):
        return load_folder(found, dtype, device)
    if isinstance(found, Architecture):
        return load_architecture(found, dtype, device)
    if isinstance(found, factories.Made):
        return load_made(found, dtype, device)
    raise TypeError(f"a pipeline cannot be loaded from {type(found).__name__}")


def builtin_prompts() -> tuple[str, ...]:
    """The zoo's prompts, the most varied eight first: captions that no pocket pipeline was trained on."""
    text = (resources.files("qregress") / "zoo" / "prompts.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)

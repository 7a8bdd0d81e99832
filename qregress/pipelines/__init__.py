"""Where a pipeline comes from: one module per source, behind ``check`` and ``load``."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from qregress.errors import ConfigError, nearest
from qregress.matrix import Pipeline
from qregress.pipelines import factories, path, pocket
from qregress.pipelines.factories import registered
from qregress.pipelines.folder import Folder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["SOURCES", "builtin_prompts", "check", "components", "find", "load", "registered"]

#: Scheme of a source -> what finds its files.
SOURCES = {"pocket": pocket.find, "path": path.find}


def check(source: str) -> Folder:
    """Find a pipeline's files and check that they are whole, without loading a model.

    Raises ``ConfigError`` for a source that does not exist or a pipeline without a denoiser, ``SourceError`` for files
    that are missing or truncated.
    """
    scheme, separator, rest = source.partition(":")
    if not separator or scheme not in SOURCES:
        found = f"'{scheme}:'" if separator else f"'{source}', which has no scheme"
        if not separator and source.count("/") == 1:
            found += " (nothing is downloaded from a hub: fetch the repository and write path:FOLDER)"
        raise ConfigError(f"unknown source {found}; {nearest(scheme, SOURCES)}, as in pocket:pixart-sigma")
    folder = SOURCES[scheme](rest)
    _ = folder.family  # raises where it has none
    return folder


def find(pipeline: Pipeline) -> Folder | factories.Made:
    """What a pipeline is loaded from: its files, checked, or its registered function. Raises as both do."""
    return check(pipeline.source) if pipeline.factory is None else factories.find(pipeline)


def components(pipeline: Pipeline) -> tuple[str, ...] | None:
    """The components that settings may quantize; ``None`` where that is not known before it is loaded."""
    return check(pipeline.source).components if pipeline.factory is None else pipeline.factory.components


def load(source: str | Folder | factories.Made, dtype: str, device: str) -> DiffusionPipeline:
    """Load a pipeline on a device. ``dtype``: the compute dtype of all but the VAE (see ``assemble.py``)."""
    from qregress.pipelines.assemble import load_folder, load_made

    found = check(source) if isinstance(source, str) else source
    return load_folder(found, dtype, device) if isinstance(found, Folder) else load_made(found, dtype, device)


def builtin_prompts() -> tuple[str, ...]:
    """The zoo's prompts, the most varied eight first: captions that no pocket pipeline was trained on."""
    text = (resources.files("qregress") / "zoo" / "prompts.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)

"""What a pipeline is made of, as one SHA-256: the same on every machine, another for another byte."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qregress.errors import SourceError
from qregress.metrics.weights import digest_file, digest_tensors
from qregress.pipelines.architecture import Architecture
from qregress.pipelines.folder import Folder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

#: What is beside a pipeline and not in it. Hidden files are a download's or git's own, and hold times.
_BESIDE = ("*.md", "*.png", "*.webp", "*.jpg", "*.jpeg", "training.json", "scores.json", ".*", "__pycache__")
#: Entries of a component's configuration that say where it came from, or which library wrote it.
_NOT_CONFIGURATION = ("_*", "*_version", "dtype", "torch_dtype")

#: (path, size, mtime_ns) -> digest, for this process alone: a file may change between two runs within one mtime.
_known: dict[tuple[str, int, int], str] = {}


def source_sha256(
    source: Folder | Architecture | DiffusionPipeline, call: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """SHA-256 over all that decides a pipeline's images, hex. 0.7 s per GB.

    Of a folder: relative names and contents of all files, its own and the shared components', but cards and pictures;
    a file that has not changed is read once. Of a repository: its commit, which says the same. Of an architecture: what
    it is made of, and its seed. Of a loaded pipeline, which a factory made: classes, configurations, vocabularies, and
    names, dtypes, shapes and bytes of all weights, so it depends on the compute dtype. ``call``: arguments of every
    call that are in none of these. Raises ``SourceError`` for a file that cannot be read.
    """
    if isinstance(source, Folder) and source.commit is not None:
        table: Any = {"commit": source.commit, "variant": source.variant}
    elif isinstance(source, Folder):
        table = {name: _digest(path) for name, path in files(source).items()}
    elif isinstance(source, Architecture):
        table = source.asked
    else:
        table = _parts(source)
    if call:
        table = [table, dict(call)]
    return hashlib.sha256(json.dumps(table, sort_keys=True, default=_plain).encode()).hexdigest()


def files(folder: Folder) -> dict[str, Path]:
    """Relative name -> file, of all that a pipeline is made of; of a shared component as if it lay in the folder."""
    found = dict(_walk(folder.path))
    for component, shared in folder.shared.items():
        found |= {f"{component}/{name}": path for name, path in _walk(shared)}
    return found


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Files that matter, through links, as hubs' caches and shared components are made of them."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if _matters(name) and os.path.realpath(Path(folder, name)) not in seen]
        seen.update(os.path.realpath(Path(folder, name)) for name in folders)
        for name in filter(_matters, names):
            path = Path(folder, name)
            yield path.relative_to(root).as_posix(), path


def _matters(name: str) -> bool:
    return not any(fnmatch(name, pattern) for pattern in _BESIDE)


def _digest(path: Path) -> str:
    try:
        state = path.stat()
        key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        if key not in _known:
            _known[key] = digest_file(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    return _known[key]


def _parts(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Class and configuration of the pipeline and of each component, with the digest of its weights or vocabulary."""
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    own = {name: value for name, value in _configuration(pipeline).items() if name not in pipeline.components}
    found: dict[str, Any] = {"": [type(pipeline).__name__, own]}
    for name, part in parts.items():
        found[name] = [type(part).__name__, _configuration(part)]
        if hasattr(part, "state_dict"):
            found[name].append(digest_tensors(part.state_dict()))
        if hasattr(part, "get_vocab"):
            found[name].append(part.get_vocab())
    return found


def _configuration(part: Any) -> dict[str, Any]:
    """What was chosen, without defaults where they can be told: a library that gets a new one changes no pipeline."""
    config = getattr(part, "config", {})
    if hasattr(config, "to_diff_dict"):  # of transformers
        table = dict(config.to_diff_dict())
    else:  # of diffusers
        table = {name: value for name, value in dict(config).items() if name not in config.get(_DEFAULTS, ())}
    return {name: v for name, v in table.items() if not any(fnmatch(name, p) for p in _NOT_CONFIGURATION)}


#: diffusers' own list of what was not in the file that it read.
_DEFAULTS = "_use_default_values"


def _plain(value: Any) -> Any:
    """Tensors, arrays and pictures by their bytes; of anything else its type, as its text may hold an address."""
    if hasattr(value, "detach"):  # a tensor, of a dtype that numpy need not know
        return digest_tensors({"": value})
    if hasattr(value, "tobytes"):
        return [
            type(value).__name__,
            getattr(value, "shape", None) or value.size,
            hashlib.sha256(value.tobytes()).hexdigest(),
        ]
    if isinstance(value, Mapping):
        return dict(value)
    return [type(value).__module__, type(value).__qualname__]

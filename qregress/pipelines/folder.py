"""A Diffusers folder on disk: what it holds, and whether its files are whole. No torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import msgspec

from qregress.errors import DamagedError, SourceError
from qregress.pipelines.families import Family, Kind, family
from qregress.pipelines.variants import indices_of, variant_of, weights_of

_ENTRY = 2  # of model_index.json: library and class
_PREFIX = 8  # bytes of the header's length, little-endian
_SMALLEST_HEADER = 2  # {}
_HEADER_LIMIT = 100 * 1024**2  # the limit of the safetensors format itself


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of any pipeline before it is loaded.

    ``call``: arguments that every pipeline call needs. ``trained``: whether its images mean anything. ``pinned``: the
    source in other words, where those that it was written in may come to mean something else.
    """

    call: dict[str, Any] = {}
    trained: bool = True
    pinned: str | None = None


class Described(Source, frozen=True, kw_only=True):
    """A pipeline whose parts are known without loading it.

    ``kinds``: library and class of each component. ``components``: those with weights, so those that can be quantized.
    """

    class_name: str
    kinds: dict[str, Kind]
    components: tuple[str, ...]
    default_devices: tuple[str, ...] = ("cuda",)

    @property
    def family(self) -> Family:
        """Roles of its components. Raises ``ConfigError`` where it has no denoiser."""
        return family(self.class_name, self.kinds)


class Folder(Described, frozen=True, kw_only=True):
    """A pipeline's files.

    ``shared``: components whose files lie elsewhere. ``variant``: of those components that have it. ``commit``: what
    says which files these are, where they are a repository's.
    """

    path: Path
    shared: dict[str, Path] = {}
    variant: str | None = None
    commit: str | None = None


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """``parameters``: elements of all tensors, as stored. ``size``: bytes of the files."""

    parameters: int
    size: int


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises ``SourceError`` with one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: missing; copy the folder again") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DamagedError(path, f"not valid JSON ({error})") from None


class Index(msgspec.Struct, frozen=True):
    """What a model_index.json names: pipeline class, kinds of components, and which of them carry weights.

    ``variant``: of the weights that are read, where a component has it.
    """

    class_name: str
    kinds: dict[str, Kind]
    components: tuple[str, ...]
    variant: str | None = None


def inspect(path: Path, shared: dict[str, Path]) -> Index:
    """What a folder holds, every file of its components checked."""
    if not path.is_dir():
        raise SourceError(f"{path}: no such folder; expected a Diffusers pipeline folder with a model_index.json")
    class_name, kinds = read_index(path)
    components, variant = [], None
    for name in kinds:
        folder = shared.get(name, path / name)
        if not folder.is_dir():
            raise SourceError(f"{folder}: missing; model_index.json names component '{name}'")
        own = variant_of(file.name for file in folder.iterdir())
        if _check_component(folder, own):
            components.append(name)
            variant = variant or own
    return Index(class_name, kinds, tuple(components), variant)


def read_index(path: Path) -> tuple[str, dict[str, Kind]]:
    """Pipeline class, and library and class of each component, that a folder's model_index.json names."""
    index = read_json(path / "model_index.json")
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise SourceError(f"{path / 'model_index.json'}: names no pipeline class (_class_name)")
    kinds: dict[str, Kind] = {}
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == _ENTRY and all(isinstance(part, str) for part in entry):
            kinds[name] = entry[0], entry[1]
    return index["_class_name"], kinds


def _check_component(folder: Path, variant: str | None) -> bool:
    """Whether it carries weights; raises ``SourceError`` where they are missing or cut off."""
    names = [file.name for file in folder.iterdir()]
    weights, configs = [folder / name for name in weights_of(names, variant)], sorted(folder.glob("*config.json"))
    for config in configs:
        read_json(config)
    if not configs:
        # Models have a config.json; schedulers and tokenizers one with a name of their own.
        raise SourceError(f"{folder}: has no config.json of any kind; copy the folder again")
    if folder / "config.json" in configs and not weights:
        raise SourceError(f"{folder}: has a config.json but no .safetensors file; copy the folder again")
    for index in (folder / name for name in indices_of(names, variant)):
        table = read_json(index)
        shards = table.get("weight_map") if isinstance(table, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise DamagedError(index, "names no files (weight_map)")
        for shard in sorted(set(shards.values())):
            if not (folder / shard).exists():
                raise SourceError(f"{folder / shard}: missing; {index.name} names it")
    for file in weights:
        check_safetensors(file)
    return bool(weights)


def weights(folder: Path) -> Weights:
    """How large a component's weights are. Raises ``SourceError`` for a file that is not whole."""
    found = sorted(folder.glob("*.safetensors"))
    return Weights(
        parameters=sum(check_safetensors(file) for file in found), size=sum(file.stat().st_size for file in found)
    )


def check_safetensors(file: Path) -> int:
    """Compare a safetensors file's size with what its header promises, as a cut-off download shows.

    Returns the number of elements of all its tensors.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(_PREFIX)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == _PREFIX else 0
            if not _SMALLEST_HEADER <= length <= min(size - _PREFIX, _HEADER_LIMIT):
                raise DamagedError(file, "not a safetensors file, or truncated within its header")
            header = json.loads(stream.read(length))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        ends = [int(entry["data_offsets"][1]) for entry in entries]
        elements = sum(math.prod(map(int, entry["shape"])) for entry in entries)
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DamagedError(file, "its safetensors header is damaged") from None
    expected = _PREFIX + length + max(ends, default=0)
    if size != expected:
        raise DamagedError(file, f"truncated or overlong: {size} bytes, its header promises {expected}")
    return elements

"""``hub:OWNER/NAME@REVISION``: a repository of the Hugging Face hub, pinned, in the hub's own cache. No torch.

Looked at, it is a few small files and a list; its weights come when a run needs them. What is whole in the cache needs
no network again. Of each component one variant is fetched, and safetensors alone: other formats can hold code.
"""

from __future__ import annotations

import glob
import re
import shutil
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from qregress.errors import ConfigError, DamagedError, SourceError
from qregress.pipelines.families import Kind
from qregress.pipelines.folder import Described, Folder, inspect, read_index
from qregress.pipelines.hub_errors import Address, told
from qregress.pipelines.path import of_folder
from qregress.pipelines.variants import indices_of, is_index, variant_of, weights_of
from qregress.units import format_bytes

_INDEX = "model_index.json"
#: What components have beside weights: configurations and vocabularies.
_TEXTS = {".json", ".txt", ".model", ".jinja"}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOVING = ("main", "master")


class Repository(Described, frozen=True, kw_only=True):
    """A repository of which not all is here yet.

    ``path``: of its snapshot in the cache, with all but weights. ``files``: what a pipeline of it needs, and how many
    bytes each has.
    """

    address: Address
    path: Path
    files: dict[str, int]
    variant: str | None

    def size(self, component: str) -> int:
        """Bytes of a component's weights."""
        return sum(size for name, size in self.files.items() if name.startswith(f"{component}/") and _is_weights(name))

    @property
    def missing(self) -> int:
        """Bytes that are to be fetched."""
        return sum(size for name, size in self.files.items() if not (self.path / name).exists())


def find(rest: str) -> Folder | Repository:
    """A pinned repository: its folder where all of it is in the cache, else what the hub tells of it.

    Raises ``ConfigError`` where no revision is named, ``SourceError`` with one line for a repository or revision that
    does not exist or may not be read, that is no pipeline, or that cannot be asked about.
    """
    address = parse(rest)
    kept = _kept(address) if _COMMIT.fullmatch(address.revision) else None
    return kept or _look(address)


def fetch(repository: Repository) -> Folder:
    """Download what is missing. Raises ``SourceError`` with one line: no network, no room, an interruption."""
    from huggingface_hub import constants, snapshot_download

    address, cache = repository.address, Path(constants.HF_HUB_CACHE)
    free, missing = shutil.disk_usage(_existing(cache)).free, repository.missing
    if missing > free:
        raise SourceError(
            f"hub:{address}: {format_bytes(missing)} are to be fetched and the disk of {cache} has "
            f"{format_bytes(free)} left; make room, or set HF_HOME to a folder on another disk"
        )
    with told(address):
        _ = snapshot_download(
            address.repository,
            revision=address.revision,
            allow_patterns=[glob.escape(name) for name in repository.files],
        )
    return _folder(repository.path, address)


def parse(rest: str) -> Address:
    """Raises ``ConfigError`` for what is no repository at a pinned revision."""
    repository, _, revision = rest.partition("@")
    pin = "write hub:OWNER/NAME@REVISION, with a commit"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise ConfigError(f"hub:{rest}: '{repository}' is no repository; {pin} or tag")
    where = f"{pin} of {Address(repository, '').page}/commits/main, or a tag"
    if not revision:
        raise ConfigError(f"hub:{rest}: names no revision, and what it holds may change under its name; {where}")
    if revision in _MOVING:
        raise ConfigError(f"hub:{rest}: '{revision}' is a branch, which moves; {where}")
    return Address(repository, revision)


def _kept(address: Address) -> Folder | None:
    """What is whole in the cache, without asking anybody."""
    from huggingface_hub import errors, snapshot_download

    try:
        path = snapshot_download(
            address.repository, revision=address.revision, allow_patterns=[_INDEX], local_files_only=True
        )
        return _folder(Path(path), address)
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, SourceError):
        return None  # what is wrong with it is said by who looks at the hub


@lru_cache(maxsize=32)
def _look(address: Address) -> Folder | Repository:
    """Ask the hub, and fetch what is no weights; without a network, what the cache has of the revision."""
    from huggingface_hub import HfApi

    with told(address, lambda: _kept(address)) as fallen_back:
        info = HfApi().model_info(address.repository, revision=address.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        path = _fetch(address, [_INDEX])
        pinned = Address(address.repository, path.name)
    if fallen_back:
        return fallen_back[0]
    if _INDEX not in sizes:
        raise SourceError(f"hub:{address}: has no {_INDEX}: it is no pipeline of Diffusers")
    class_name, kinds = read_index(path)
    variants = {name: _chosen(address, name, sizes) for name in kinds}
    files = [_INDEX, *(name for names in variants.values() for name in names)]
    with told(address):
        _fetch(pinned, [name for name in files if not _is_weights(name)])
    return _kept(pinned) or _described(pinned, path, class_name, kinds, {name: sizes[name] for name in files})


def _fetch(address: Address, files: list[str]) -> Path:
    """Small files of a snapshot, and its folder; without a word, as nobody asked for them."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))

    wanted = [glob.escape(name) for name in files]
    return Path(
        snapshot_download(address.repository, revision=address.revision, allow_patterns=wanted, tqdm_class=Silent)
    )


def _described(
    address: Address, path: Path, class_name: str, kinds: dict[str, Kind], files: dict[str, int]
) -> Repository:
    weighty = {PurePosixPath(name).parts[0] for name in files if _is_weights(name)}
    return Repository(
        class_name=class_name,
        kinds=kinds,
        components=tuple(name for name in kinds if name in weighty),
        pinned=f"hub:{address}",
        address=address,
        path=path,
        files=files,
        variant=variant_of(PurePosixPath(name).name for name in files),
    )


def _chosen(address: Address, component: str, sizes: dict[str, int]) -> list[str]:
    """The files of a component. Raises ``SourceError`` where it has no weights that may be read."""
    names = [PurePosixPath(name).name for name in sizes if str(PurePosixPath(name).parent) == component]
    if not names:
        raise SourceError(f"hub:{address}: has no folder {component}, which its {_INDEX} names")
    variant = variant_of(names)
    weights = weights_of(names, variant)
    if "config.json" in names and not weights:
        beside = ", only formats that can hold code" if any(name.endswith((".bin", ".ckpt")) for name in names) else ""
        raise SourceError(f"hub:{address}: {component} has no weights as safetensors{beside}; name another revision")
    texts = [name for name in names if PurePosixPath(name).suffix in _TEXTS and not is_index(name)]
    return [f"{component}/{name}" for name in sorted([*texts, *indices_of(names, variant), *weights])]


def _folder(path: Path, address: Address) -> Folder:
    """The snapshot of a commit, every file of it checked."""
    try:
        found = of_folder(path, inspect(path, {}))
    except DamagedError as error:
        # A name in a snapshot is a link to what the cache keeps, and what is there is not fetched again.
        text = f"{error.file.resolve()}: {error.what}; delete that file and run again with a network"
        raise SourceError(f"hub:{address}: {text}") from None
    return msgspec.structs.replace(found, pinned=f"hub:{address.repository}@{path.name}", commit=path.name)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _existing(path: Path) -> Path:
    """The folder itself or the nearest above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())

"""``random:NAME``: an architecture at full size, with seeded random weights. What it is made of is data; no torch.

Memory and latency do not depend on the values of weights. A file in ``architectures/`` is a pipeline:

- ``pipeline``: its class; ``arguments`` of its constructor; ``without``: components that it takes and need not have.
- ``call``: arguments of every call.
- ``components``: per component ``class`` (library and class) and ``config``, its configuration. ``files``: a folder of
  the zoo to load it from, with ``config`` over that: for tokenizers, whose small vocabulary lies within the encoder's.
  ``gain``: what random weights are multiplied with. ``part``: a file of ``architectures/parts/`` that says all this.
- ``base``: another architecture that this one changes, table by table.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from qregress.errors import ConfigError, SourceError, nearest
from qregress.pipelines.folder import Described
from qregress.pipelines.pocket import zoo

#: Part of every digest: raise it when ``build.py`` draws other weights from the same seed.
_DRAWING = 1
_SEED = re.compile(r"(?P<name>.*)@(?P<seed>[^@]*)\Z", re.DOTALL)
_SUFFIX = ".toml"
_SEEDS = range(2**63)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One component: see the module."""

    kind: str = msgspec.field(name="class")
    config: dict[str, Any] = {}
    files: str | None = None
    gain: float = 1.0

    @property
    def library(self) -> str:
        """What it is imported from."""
        return self.kind.partition(".")[0]

    @property
    def class_name(self) -> str:
        """Its class there."""
        return self.kind.partition(".")[2]

    @property
    def has_weights(self) -> bool:
        """Whether it is a model."""
        return self.files is None and not self.class_name.endswith("Scheduler")


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file as it is written, bases and parts resolved."""

    pipeline: str
    components: dict[str, Part]
    arguments: dict[str, Any] = {}
    without: list[str] = []
    call: dict[str, Any] = {}


class Architecture(Described, frozen=True, kw_only=True):
    """A pipeline that is built, not loaded: ``parts`` by component, and the seed of its weights.

    ``origin``: its name or file, for messages. ``arguments`` and ``without``: of the pipeline's constructor.
    """

    origin: str
    seed: int
    parts: dict[str, Part]
    arguments: dict[str, Any]
    without: tuple[str, ...]

    @property
    def asked(self) -> dict[str, Any]:
        """All that decides its weights and images but the arguments of calls, as plain data."""
        files = {name: _digests(zoo() / part.files) for name, part in self.parts.items() if part.files is not None}
        return {
            "pipeline": self.class_name,
            "components": msgspec.to_builtins(self.parts),
            "arguments": self.arguments,
            "files": files,
            "seed": self.seed,
            "drawing": _DRAWING,
        }


def folder() -> Path:
    """The folder of all architectures."""
    return Path(str(resources.files("qregress") / "pipelines" / "architectures"))


def names() -> list[str]:
    """All architectures of the package."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(rest: str) -> Architecture:
    """An architecture of the package, or of a file that ends in .toml; a seed may stand behind an @, else it is 0.

    Raises ``ConfigError`` for a name or seed that is none, ``SourceError`` for a file that says something else.
    """
    split = _SEED.match(rest)
    name, seed = (split["name"], _seed(split["seed"])) if split else (rest, 0)
    table = _read(name)
    parts: dict[str, Any] = {}
    for component, own in _tables(table, "components", name).items():
        below = _toml(folder() / "parts" / f"{own['part']}.toml") if "part" in own else {}
        parts[component] = merged(below, {key: value for key, value in own.items() if key != "part"})
    try:
        read = msgspec.convert(table | {"components": parts}, _Table)
    except msgspec.ValidationError as error:
        raise SourceError(f"random:{name}: {error}") from None
    for component, known in read.components.items():
        if known.library not in {"diffusers", "transformers"} or not known.class_name:
            raise SourceError(f"random:{name}: components.{component}.class: '{known.kind}' is no diffusers.CLASS")
        if known.files is not None and not (zoo() / known.files).is_dir():
            raise SourceError(f"random:{name}: components.{component}.files: the zoo has no folder '{known.files}'")
    return Architecture(
        class_name=read.pipeline,
        kinds={component: (part.library, part.class_name) for component, part in read.components.items()},
        components=tuple(sorted(component for component, part in read.components.items() if part.has_weights)),
        pinned=f"random:{name}@{seed}",
        origin=f"random:{name}",
        seed=seed,
        parts=read.components,
        arguments=read.arguments,
        without=tuple(read.without),
        call=read.call,
        trained=False,
    )


def is_file(rest: str) -> bool:
    """Whether that names a file, and none of the package's."""
    split = _SEED.match(rest)
    return (split["name"] if split else rest).endswith(_SUFFIX)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables joined at every depth; what is no table is taken from above."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        found[key] = merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return found


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) not in _SEEDS:
        raise ConfigError(f"random: '@{text}' is no seed; write a whole number from 0 behind the @, or leave it out")
    return int(text)


def _read(name: str, behind: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of an architecture over those of its bases."""
    if name in behind:
        raise SourceError(f"random:{name}: is its own base")
    if not name.endswith(_SUFFIX) and name not in names():
        raise ConfigError(f"unknown architecture '{name}'; {nearest(name, names())}, or a file that ends in .toml")
    table = _toml(Path(name) if name.endswith(_SUFFIX) else folder() / f"{name}{_SUFFIX}")
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise SourceError(f"random:{name}: base: expected a name, found {base!r}")
    place = str(Path(name).parent / base) if base.endswith(_SUFFIX) else base
    return merged(_read(place, (*behind, name)), table)


def _tables(table: Mapping[str, Any], key: str, name: str) -> dict[str, dict[str, Any]]:
    found = table.get(key)
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise SourceError(f"random:{name}: {key}: expected a table of tables")
    return found


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; expected an architecture") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not valid TOML: {error}") from None


def _digests(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())}

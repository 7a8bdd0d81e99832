"""To JSON and back: the only codec of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from qregress.errors import SchemaError
from qregress.record.base import SCHEMA, Data

T = TypeVar("T", bound=Data)


def encode(value: Data) -> bytes:
    """To indented JSON. NaN and infinity become ``null``, as JSON has neither."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """From JSON. Raises ``msgspec.ValidationError`` naming the field, ``SchemaError`` for another version's file."""
    if "schema" not in kind.__struct_fields__:
        return msgspec.json.decode(data, type=kind)
    raw = msgspec.json.decode(data)
    found = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise SchemaError(f"no schema version of qregress in it (found {found!r})")
    if found > SCHEMA:
        raise SchemaError(f"written by a newer qregress: schema {found}, this one reads up to {SCHEMA}; upgrade it")
    for version in range(found, SCHEMA):
        raw = MIGRATIONS[version](raw)
    return msgspec.convert(raw | {"schema": SCHEMA}, kind)


#: Schema version -> what makes the next one of it. What a file of version 1 lacks has defaults that say "not known":
#: such a record can be judged and compared, and accepting it is refused in words.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict}


def read(path: Path, kind: type[T]) -> T:
    """From a file; raises ``OSError`` and what ``decode`` raises."""
    return decode(path.read_bytes(), kind)

"""A finished run to read: its folder, or a zip archive of it as CI keeps them. Nothing is ever unpacked to disk."""

from __future__ import annotations

import contextlib
import io
import re
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Self

import msgspec

from qregress.errors import ConfigError, SchemaError
from qregress.record import Record, Run, T, decode
from qregress.units import format_bytes

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*){2}\Z")
_NAME = re.compile(r"images/[0-9]+\.png\Z")
#: Of one image: PNGs of 4096 px stay below it, what was packed to fill a memory does not.
LARGEST = 128 * 1024**2
#: Of one JSON file, which takes some ten times as much once it is read; records are below 1 MiB.
LARGEST_JSON = 32 * 1024**2
#: Of all files of an archive, as its own table states them.
LARGEST_ARCHIVE = 8 * 1024**3
#: What every packer writes. A few bytes of the other methods unpack to gigabytes before anybody can stop them.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError)


class FinishedRun:
    """``run.json``, records and images of a run. Close it, or use it in a ``with``."""

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` with one line for what is no run."""
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._prefix = ""
        if not path.exists():
            raise ConfigError(f"{path}: no such run; name a folder with a run.json, or a zip archive of one")
        if path.is_file():
            self._open_archive()
        try:
            self.run = self._decode("run.json", Run)
            self._check_ids()
        except FileNotFoundError:
            self.close()
            raise ConfigError(f"{path}: holds no run.json; name the folder of a run, or a zip archive of it") from None
        except ConfigError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the archive."""
        if self._archive is not None:
            self._archive.close()

    def record(self, cell: str) -> Record | None:
        """The record of a cell, ``None`` where the run has none. Raises ``ConfigError`` for a damaged one."""
        self._check_id(cell)
        name = f"cells/{cell}/record.json"
        try:
            found = self._decode(name, Record)
        except FileNotFoundError:
            return None
        if found.id != cell or f"{found.pipeline}/{found.setting}/{found.workload}" != cell:
            raise ConfigError(f"{self.path}: {name} is the record of {found.id!r}")
        if not _is_whole(found):
            raise ConfigError(f"{self.path}: {name}: not what qregress wrote: its lists are not of one length")
        if not _took_something(found):
            raise ConfigError(f"{self.path}: {name}: not what qregress wrote: seconds or bytes that are not above zero")
        return found

    def image(self, cell: str, name: str) -> bytes:
        """A cell's image, a PNG. Raises ``ConfigError`` where it is missing or damaged."""
        if not _ID.match(cell) or not _NAME.match(name):
            raise ConfigError(f"{self.path}: {cell}/{name} is no name of an image that a run writes")
        try:
            data = self._read(f"cells/{cell}/{name}", LARGEST)
        except FileNotFoundError:
            raise ConfigError(f"{self.path}: cells/{cell}/{name} is missing; take the run's whole folder") from None
        problem = _png_problem(data)
        if problem is not None:
            raise ConfigError(f"{self.path}: cells/{cell}/{name} is no image that can be read: {problem}")
        return data

    def _check_ids(self) -> None:
        """Paths are made of them."""
        for result in self.run.cells:
            self._check_id(result.id)

    def _check_id(self, cell: str) -> None:
        if not _ID.match(cell):
            raise ConfigError(f"{self.path}: {cell!r} is no cell's id; the run's files are not what a run writes")

    def _open_archive(self) -> None:
        try:
            self._archive = zipfile.ZipFile(self.path)
        except _UNREADABLE as error:
            raise ConfigError(f"{self.path}: neither a folder nor a zip archive ({error})") from None
        try:
            self._check_archive(self._archive)
        except ConfigError:
            self.close()
            raise

    def _check_archive(self, archive: zipfile.ZipFile) -> None:
        """Nothing of it is written anywhere, yet an archive that tries to leave its folder is not to be trusted."""
        tops = set()
        total = 0
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
                raise ConfigError(f"{self.path}: refused: {info.filename!r} points outside of the archive")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ConfigError(f"{self.path}: refused: {info.filename!r} is a link")
            total += info.file_size
            if path.name == "run.json":
                tops.add(str(path.parent))
        if total > LARGEST_ARCHIVE:
            limit = format_bytes(LARGEST_ARCHIVE)
            raise ConfigError(f"{self.path}: refused: unpacks to {format_bytes(total)}, and no run to over {limit}")
        if len(tops) > 1:
            raise ConfigError(f"{self.path}: holds {len(tops)} runs ({', '.join(sorted(tops))}); pack one")
        self._prefix = "" if tops in ({"."}, set()) else f"{tops.pop()}/"

    def _read(self, name: str, largest: int) -> bytes:
        if self._archive is None:
            path = self.path / name
            if not path.is_file():
                raise FileNotFoundError(name)
            with self._explained(name):
                self._check_size(name, path.stat().st_size, largest)
                return path.read_bytes()
        try:
            info = self._archive.getinfo(self._prefix + name)
        except KeyError:
            raise FileNotFoundError(name) from None
        self._check_size(name, info.file_size, largest)
        if info.compress_type not in METHODS:
            raise ConfigError(f"{self.path}: refused: {name} is packed by a method other than deflate")
        # The stated size may be a lie: without a number, reading unpacks up to 2 GiB before that is noticed.
        with self._explained(name), self._archive.open(info) as stream:
            data = stream.read(info.file_size)
            stream.read(1)  # at the end the checksum is held against the data
            return data

    def _check_size(self, name: str, size: int, largest: int) -> None:
        if size > largest:
            allowed = format_bytes(largest)
            raise ConfigError(f"{self.path}: refused: {name} has {format_bytes(size)}, and no such file over {allowed}")

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            raise ConfigError(f"{self.path}: {name} cannot be read: {error}") from None

    def _decode(self, name: str, kind: type[T]) -> T:
        try:
            return decode(self._read(name, LARGEST_JSON), kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, SchemaError, RecursionError) as error:
            raise ConfigError(f"{self.path}: {name}: not what qregress wrote: {error}") from None


def _is_whole(record: Record) -> bool:
    """Whether what is compared pair by pair comes in pairs."""
    scores, timing = record.scores, record.timing
    pairs = []
    if scores is not None:
        pairs.append((scores.clip, scores.clip_reference))
    if timing is not None:
        pairs.append((timing.samples_s, timing.reference_s))
    return all(len(one) == len(other) for one, other in pairs if other)


def _took_something(record: Record) -> bool:
    """Whether what others are divided by, or it by them, is above zero."""
    memory, timing = record.memory, record.timing
    found: list[float] = [memory.static_bytes] if memory is not None else []
    if timing is not None:
        seconds = (timing.samples_s, timing.reference_s, timing.busy_s, timing.reference_busy_s)
        found += [second for each in seconds for second in each or ()]
    return all(each > 0 for each in found)


def _png_problem(data: bytes) -> str | None:
    """Why it cannot be decoded; ``None`` where it can."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                image.load()
    except Exception as error:  # noqa: BLE001 - decoders raise what they like, SyntaxError among it
        return str(error) or type(error).__name__
    return None

"""A finished run to read: its folder, or a zip archive of it as CI keeps them. Nothing is ever unpacked to disk."""

from __future__ import annotations

import contextlib
import re
import stat
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
#: Of one file read from an archive: PNGs of 4096 px stay below it, what was packed to fill a memory does not.
LARGEST = 128 * 1024**2
#: Of all files of an archive, as its own table states them.
LARGEST_ARCHIVE = 8 * 1024**3


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
        except FileNotFoundError:
            self.close()
            raise ConfigError(f"{path}: holds no run.json; name the folder of a run, or a zip archive of it") from None

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
        if not _ID.match(cell):
            raise ConfigError(f"{self.path}: {cell!r} is no cell's id; the run's files are not what a run writes")
        try:
            found = self._decode(f"cells/{cell}/record.json", Record)
        except FileNotFoundError:
            return None
        if found.id != cell:
            raise ConfigError(f"{self.path}: cells/{cell}/record.json is the record of {found.id!r}")
        return found

    def image(self, cell: str, name: str) -> bytes:
        """A cell's image. Raises ``ConfigError`` where it is missing."""
        if not _ID.match(cell) or not _NAME.match(name):
            raise ConfigError(f"{self.path}: {cell}/{name} is no name of an image that a run writes")
        try:
            return self._read(f"cells/{cell}/{name}")
        except FileNotFoundError:
            raise ConfigError(f"{self.path}: cells/{cell}/{name} is missing; take the run's whole folder") from None

    def _open_archive(self) -> None:
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
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

    def _read(self, name: str) -> bytes:
        if self._archive is None:
            path = self.path / name
            if not path.is_file():
                raise FileNotFoundError(name)
            with self._explained(name):
                return path.read_bytes()
        try:
            info = self._archive.getinfo(self._prefix + name)
        except KeyError:
            raise FileNotFoundError(name) from None
        if info.file_size > LARGEST:
            raise ConfigError(f"{self.path}: refused: {name} unpacks to {info.file_size / 1024**2:.0f} MiB")
        with self._explained(name):
            return self._archive.read(info)

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise ConfigError(f"{self.path}: {name} cannot be read: {error}") from None

    def _decode(self, name: str, kind: type[T]) -> T:
        try:
            return decode(self._read(name), kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, SchemaError) as error:
            raise ConfigError(f"{self.path}: {name}: not what qregress wrote: {error}") from None

"""The folder of accepted baselines: found by device class and cell, compared by what was asked for.

``<device class>/<pipeline>/<setting>/<workload>/`` holds ``baseline.json``, ``accepted.json`` and, for references,
``images/``. Changes go through a journal, so that the folder is the old one or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from qregress.errors import SchemaError, StoreError
from qregress.record import SCHEMA, Asked, Data, T, decode, encode
from qregress.store import journal
from qregress.store.atomic import locked
from qregress.store.baseline import ACCEPTED, BASELINE, Accepted, Baseline, Entry, is_sealed

MARK = "qregress-baselines.json"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*){3}\Z")
_SHOWN = 60  # characters of a value
_HINT = "restore it (git checkout), or accept that cell again"


class Key(msgspec.Struct, frozen=True, order=True):
    """The place of an entry."""

    device_class: str
    cell: str

    @property
    def path(self) -> str:
        """Relative to the store."""
        return f"{self.device_class}/{self.cell}"


class Store:
    """A folder of baselines; one that is not there is empty. Reading finishes what an interrupted write has left."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, *, writable: bool = False) -> None:
        """Whether it can be read, or written. Raises ``StoreError`` with one line."""
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root}: is a file, not a folder; choose another with --qregress-baselines")
        with self._reading():
            mark = self.root / MARK
            if mark.exists():
                self._decode(mark, _Mark)
        if not writable:
            return
        there = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK) or self._is_read_only(there):
            raise StoreError(f"{self.root}: cannot be written: {there} is read-only; nothing was accepted")
        if self._is_foreign():
            with self._reading():  # again under the lock: it may be another process's first write
                foreign = self._is_foreign()
            if foreign:
                raise StoreError(f"{self.root}: holds other files and no baselines; choose another folder for them")

    def _is_read_only(self, there: Path) -> bool:
        """Whether nothing can be made there, tried out: ``os.access`` tells the superuser that all may be written."""
        try:
            if there == self.root:
                with locked(there):  # no reader comes across it
                    journal.try_out(there)
            else:
                Path(tempfile.mkdtemp(prefix=".qregress-", dir=there)).rmdir()
        except OSError as error:
            return error.errno not in {errno.ENOSPC, errno.EDQUOT}  # of a full disk the write itself tells
        return False

    def _is_foreign(self) -> bool:
        return self.root.is_dir() and not (self.root / MARK).exists() and any(self.root.iterdir())

    def places(self) -> list[Key]:
        """All entries, sorted, damaged ones too."""
        with self._reading():
            return self._keys()

    def find(self, device_class: str, cell: str) -> Entry | None:
        """One entry, its files held against their digests. Raises ``StoreError`` where they differ."""
        if not _ID.match(f"{device_class}/{cell}"):  # they may be a stranger's
            raise StoreError(f"{device_class!r}, {cell!r}: no place of a baseline")
        with self._reading():
            return self._entry(Key(device_class, cell))

    def image(self, entry: Entry, name: str) -> bytes:
        """A reference's image. Raises ``StoreError`` where it is missing or damaged."""
        key = Key(entry.baseline.device_class, entry.baseline.id)
        with self._reading():
            return self._checked(key, name, entry.accepted.files[name])

    def explain(self, device_class: str, cell: str, asked: Asked) -> str:
        """Why there is no comparable baseline: none is there, or something else was asked for when it was accepted."""
        entry = self.find(device_class, cell)
        if entry is not None:
            changes = differences(entry.baseline.asked, asked)
            return f"what is asked for has changed since its baseline was accepted: {'; '.join(changes)}"
        keys = self.places()
        if not keys:
            return f"no baselines in {self.root.name}/"
        classes = sorted(key.device_class for key in keys if key.cell == cell)
        if classes:
            return f"accepted on {' and '.join(classes)} only, and this is {device_class}"
        return f"no baseline of this cell was accepted on {device_class}"

    def damage(self) -> dict[Key, str]:
        """Entries that are not what was accepted, and why."""
        found = {}
        with self._reading():
            for key in self._keys():
                try:
                    entry = self._entry(key)
                    if entry is not None:
                        for name, sha256 in entry.accepted.files.items():
                            self._checked(key, name, sha256)
                except StoreError as error:
                    found[key] = str(error)
        return found

    def entries(self) -> dict[Key, Entry | StoreError]:
        """All of them; the error in place of a damaged one."""
        with self._reading():
            return self._present()

    def _present(self) -> dict[Key, Entry | StoreError]:
        present: dict[Key, Entry | StoreError] = {}
        for key in self._keys():
            try:
                entry = self._entry(key)
            except StoreError as error:
                present[key] = error
            else:
                if entry is not None:
                    present[key] = entry
        return present

    def copy(self, target: Path) -> None:
        """All of it, as it is now, to a folder that is not there yet; nothing where there is nothing."""
        with self._reading():
            if not (self.root / MARK).exists():
                return
            try:
                shutil.copytree(self.root, target, ignore=shutil.ignore_patterns(journal.FOLDER))
            except shutil.Error as error:
                raise StoreError(f"{target}: cannot be written: {error.args[0][0][2]}") from None
            except OSError as error:
                raise StoreError(f"{target}: cannot be written: {error.strerror or error}") from None

    def write(
        self,
        change: Callable[[Mapping[Key, Entry | StoreError]], tuple[Mapping[Key, dict[str, bytes]], Collection[Key]]],
    ) -> None:
        """Change many entries as one.

        ``change`` is called with the present entries (the error in place of a damaged one), under the lock; it returns
        the new files of entries to write, each of which replaces all of the entry's old ones, and entries to remove.
        Raises ``StoreError`` with one line, and then nothing has changed.
        """
        self.check(writable=True)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root):
                journal.recover(self.root)
                written, removed = change(self._present())
                self._commit(written, removed)
        except OSError as error:
            reason = error.strerror or str(error)
            left = "whoever opens it next finishes the write" if journal.decided(self.root) else "nothing was accepted"
            raise StoreError(f"{self.root}: cannot be written: {reason}; {left}") from None

    def _commit(self, written: Mapping[Key, dict[str, bytes]], removed: Collection[Key]) -> None:
        puts: dict[str, bytes] = {}
        drops: list[str] = []
        for key, files in written.items():
            place = f"{key.device_class}/{key.cell}"
            if not _ID.match(place):
                raise StoreError(f"{place!r} is no place for a baseline; nothing was accepted")
            fresh = {f"{place}/{name}": data for name, data in files.items()}
            puts |= {name: data for name, data in fresh.items() if not self._holds(name, data)}
            drops += [name for name in self._files(key) if name not in fresh]
        drops += [name for key in removed for name in self._files(key)]
        if not puts and not drops:
            return
        if not self._holds(MARK, encode(_Mark())):  # of an older schema too: what is written now is not of that one
            puts[MARK] = encode(_Mark())
        if not (self.root / MARK).exists():
            puts[".gitignore"] = f"{journal.FOLDER}/\n".encode()
            puts[".gitattributes"] = b"* -text\n"  # files are held against their digests: no line ends of Windows
        journal.commit(self.root, puts, drops)

    def _holds(self, name: str, data: bytes) -> bool:
        path = self.root / name
        return path.is_file() and path.read_bytes() == data

    def _files(self, key: Key) -> list[str]:
        folder = self.root / key.path
        return sorted(str(path.relative_to(self.root)) for path in folder.rglob("*") if not path.is_dir())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Under a shared lock, with nothing left half done."""
        try:
            with contextlib.ExitStack() as stack:
                while self.root.is_dir():
                    lock = stack.enter_context(contextlib.ExitStack())
                    lock.enter_context(locked(self.root, shared=True))
                    # Looked at under the lock: while this one waited for it, a writer may have been killed.
                    if not journal.pending(self.root) or self._is_rubbish():
                        break
                    lock.close()
                    self._recover()
                yield
        except OSError as error:
            raise StoreError(f"{error.filename or self.root}: cannot be read: {error.strerror or error}") from None

    def _is_rubbish(self) -> bool:
        """What an interrupted write has left decides nothing, and cannot be cleared away: the old store is whole."""
        return not journal.decided(self.root) and not os.access(self.root, os.W_OK | os.X_OK)

    def _recover(self) -> None:
        try:
            with locked(self.root):
                journal.recover(self.root)
        except OSError as error:
            reason = error.strerror or error
            raise StoreError(f"{self.root}: cannot finish the write that was interrupted here: {reason}") from None
        except journal.DamagedPlanError:
            place = self.root / journal.FOLDER
            hint = "remove it, and restore the folder (git checkout)"
            raise StoreError(f"{place}: an interrupted write left a damaged plan; {hint}") from None

    def _keys(self) -> list[Key]:
        files = (path for name in (BASELINE, ACCEPTED) for path in self.root.glob(f"*/*/*/*/{name}"))
        places = {path.parent.relative_to(self.root).as_posix() for path in files}
        return sorted(Key(*place.split("/", 1)) for place in places if _ID.match(place))

    def _entry(self, key: Key) -> Entry | None:
        folder = self.root / key.path
        if not any((folder / name).exists() for name in (BASELINE, ACCEPTED)):
            return None
        if not (self.root / MARK).exists():
            raise StoreError(f"{self.root / MARK}: is missing, and {key.path} is there; restore it (git checkout)")
        accepted = self._decode(folder / ACCEPTED, Accepted)
        if not is_sealed((folder / ACCEPTED).read_bytes(), accepted.sha256):
            raise StoreError(f"{folder / ACCEPTED}: was edited by hand; {_HINT}")
        baseline = self._decode(folder / BASELINE, Baseline, self._checked(key, BASELINE, accepted.files.get(BASELINE)))
        if (baseline.device_class, baseline.id) != (key.device_class, key.cell):
            raise StoreError(f"{folder}: holds the baseline of {baseline.device_class}/{baseline.id}; {_HINT}")
        return Entry(baseline=baseline, accepted=accepted)

    def _checked(self, key: Key, name: str, sha256: str | None) -> bytes:
        path = self.root / key.path / name
        if not path.exists():
            raise StoreError(f"{path}: is missing; {_HINT}")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"{path}: is not what was accepted (its SHA-256 differs): edited or damaged; {_HINT}")
        return data

    def _decode(self, path: Path, kind: type[T], data: bytes | None = None) -> T:
        try:
            return decode(path.read_bytes() if data is None else data, kind)
        except FileNotFoundError:
            raise StoreError(f"{path}: is missing; {_HINT}") from None
        except SchemaError as error:
            raise StoreError(f"{path}: {error}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(f"{path}: cannot be read: {error}; {_HINT}") from None


class _Mark(Data, frozen=True, kw_only=True):
    """What makes a folder a store."""

    schema: int = SCHEMA
    what: str = "baselines of qregress; written by qregress accept, not by hand"


def differences(before: Asked, now: Asked) -> list[str]:
    """What was asked for then and now, in words; empty where it is the same."""
    if before.key == now.key:
        return []
    words = []
    before, now = before.effective, now.effective
    if before.source_sha256 != now.source_sha256:
        words.append("the pipeline's files are others")
    for section in ("call", "setting", "workload"):
        old, new = getattr(before, section), getattr(now, section)
        words += [
            f"{section}'s {name} was {_shown(old.get(name))} and is {_shown(new.get(name))}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    if before.reference_dtype != now.reference_dtype:
        words.append(f"the reference ran in {before.reference_dtype} and runs in {now.reference_dtype}")
    if before.initial_sha256 != now.initial_sha256 and not words:
        words.append("the initial noise is another, as after a change of torch's random stream")
    return words


def _shown(value: object) -> str:
    text = "the default" if value is None else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."

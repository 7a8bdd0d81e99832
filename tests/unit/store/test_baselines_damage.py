"""Damage in every kind of file of a store, and files of other versions: each is told in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from qregress.errors import StoreError
from qregress.record import SCHEMA, codec
from qregress.store.baseline import ACCEPTED, BASELINE, seal
from qregress.store.baselines import MARK, Key, Store
from tests.store_making import CLASS, files
from tests.unit.store.making import FIRST, PLACE, REFERENCE, SECOND, complaint, found, other, take


@pytest.mark.parametrize(
    ("cell", "name"),
    [(FIRST, BASELINE), (FIRST, ACCEPTED), (REFERENCE, BASELINE), (REFERENCE, ACCEPTED), (REFERENCE, "images/01.webp")],
)
def test_a_flipped_bit(store: Store, cell: str, name: str) -> None:
    """Given any byte of any file of an entry with a bit flipped, then the file is named, and no other entry suffers."""
    path = store.root / CLASS / cell / name
    whole = path.read_bytes()
    step = max(1, len(whole) // 150)
    for index in range(0, len(whole), step):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
        damage = store.damage()
        assert list(damage) == [Key(CLASS, cell)], index
        assert str(path.parent) in damage[Key(CLASS, cell)], index
        if not name.startswith("images"):
            assert complaint(lambda: store.find(CLASS, cell)) == damage[Key(CLASS, cell)]
        assert found(store, SECOND).baseline.id == SECOND
    path.write_bytes(whole)
    assert store.damage() == {}


@pytest.mark.parametrize("length", [0, 10, -1])
@pytest.mark.parametrize("name", [BASELINE, ACCEPTED])
def test_a_truncated_file(store: Store, name: str, length: int) -> None:
    """Given a file that ends early, then it is named."""
    path = store.root / PLACE / name
    path.write_bytes(path.read_bytes()[:length])
    assert str(path) in complaint(lambda: store.find(CLASS, FIRST))


def test_a_flipped_bit_in_the_mark(store: Store) -> None:
    """Given any byte of the mark with a bit flipped, then it is named, or the store is as it was: never another one."""
    mark = store.root / MARK
    whole, entry = mark.read_bytes(), found(store)
    told = []
    for index in range(len(whole)):
        mark.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        try:
            store.check(writable=True)
        except StoreError as error:
            told.append(str(error))
        assert found(store) == entry
        assert len(store.places()) == 3
    assert len(told) > 10
    assert all(str(mark) in text for text in told)


def test_a_missing_mark(store: Store, tmp_path: Path) -> None:
    """Given baselines without their mark, then they are not taken for nothing: a gate would be green."""
    (store.root / MARK).unlink()
    text = f"{store.root / MARK}: is missing, and {PLACE} is there; restore it (git checkout)"
    assert complaint(lambda: store.find(CLASS, FIRST)) == text
    assert len(store.damage()) == 3
    before = files(store.root)
    assert "holds other files and no baselines" in complaint(lambda: take(store, other(tmp_path)))
    assert files(store.root) == before


@pytest.mark.parametrize("name", [BASELINE, ACCEPTED])
def test_a_missing_file(store: Store, name: str) -> None:
    """Given an entry without one of its files, then it is named with what to do."""
    path = store.root / PLACE / name
    path.unlink()
    hint = "restore it (git checkout), or accept that cell again"
    assert complaint(lambda: store.find(CLASS, FIRST)) == f"{path}: is missing; {hint}"
    assert list(store.damage()) == [Key(CLASS, FIRST)]


def test_a_missing_image(store: Store) -> None:
    """Given a reference without one of its images, then the image is named."""
    path = store.root / CLASS / REFERENCE / "images" / "01.webp"
    path.unlink()
    entry = found(store, REFERENCE)
    assert complaint(lambda: store.image(entry, "images/01.webp")).startswith(f"{path}: is missing; ")
    assert list(store.damage()) == [Key(CLASS, REFERENCE)]


@pytest.mark.parametrize("name", [BASELINE, ACCEPTED])
def test_numbers_edited_by_hand(store: Store, name: str) -> None:
    """Given a figure changed by hand, in right JSON, then the entry is refused."""
    path = store.root / PLACE / name
    value = json.loads(path.read_bytes())
    if name == BASELINE:
        value["scores"]["lpips"][0] = 0.5
    else:
        value["timing"]["samples_s"][0] = 9.0
    path.write_text(json.dumps(value, indent=1) + "\n")
    says = "is not what was accepted (its SHA-256 differs)" if name == BASELINE else "was edited by hand"
    assert complaint(lambda: store.find(CLASS, FIRST)).startswith(f"{path}: {says}")


def test_an_entry_moved_by_hand(store: Store) -> None:
    """Given an entry in another cell's folder, or in another device class's, then it says whose it is."""
    shutil.rmtree(store.root / CLASS / SECOND)
    shutil.copytree(store.root / PLACE, store.root / CLASS / SECOND)
    assert f"{SECOND}: holds the baseline of {PLACE}; restore it" in complaint(lambda: store.find(CLASS, SECOND))
    shutil.copytree(store.root / PLACE, store.root / "cuda-h100" / FIRST)
    assert f"holds the baseline of {PLACE}" in complaint(lambda: store.find("cuda-h100", FIRST))


def test_a_newer_schema(store: Store) -> None:
    """Given an entry or a mark that a newer qregress wrote, then one line says so."""
    entry = found(store)
    newer = seal(msgspec.structs.replace(entry.accepted, schema=SCHEMA + 1))
    (store.root / PLACE / ACCEPTED).write_bytes(newer)
    says = f"written by a newer qregress: schema {SCHEMA + 1}, this one reads up to {SCHEMA}; upgrade it"
    assert complaint(lambda: store.find(CLASS, FIRST)) == f"{store.root / PLACE / ACCEPTED}: {says}"
    (store.root / MARK).write_text(json.dumps({"schema": SCHEMA + 1, "what": "new"}))
    assert complaint(store.check) == f"{store.root / MARK}: {says}"


def test_an_older_schema(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a store of an older schema, then it is read through the migration, with its seal right."""
    entry = found(store)
    newest = SCHEMA + 1

    def migrate(raw: dict[str, object]) -> dict[str, object]:
        return raw | ({"reason": f"{raw['reason']}, migrated"} if "reason" in raw else {})

    monkeypatch.setattr(codec, "SCHEMA", newest)
    monkeypatch.setitem(codec.MIGRATIONS, SCHEMA, migrate)
    assert store.damage() == {}
    found_now = found(store)
    assert (found_now.accepted.schema, found_now.accepted.reason) == (newest, "first, migrated")
    assert found_now.baseline.scores == entry.baseline.scores
    path = store.root / PLACE / ACCEPTED
    path.write_bytes(path.read_bytes().replace(b'"first"', b'"First"'))
    assert "was edited by hand" in complaint(lambda: store.find(CLASS, FIRST))


def test_the_mark_of_an_older_schema(store: Store, tmp_path: Path) -> None:
    """Given a store that an older qregress made, when entries are written, then the older one is told that it's newer.

    It would else write over entries that it cannot read.
    """
    mark = store.root / MARK
    now = mark.read_bytes()
    mark.write_bytes(now.replace(b'"schema": 2', b'"schema": 1'))
    assert mark.read_bytes() != now
    take(store, other(tmp_path))
    assert mark.read_bytes() == now

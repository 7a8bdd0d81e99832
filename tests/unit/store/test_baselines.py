"""The folder of baselines: what is in it, where an entry may be, and what is not touched."""

from __future__ import annotations

from pathlib import Path

from qregress.store.accept import accept
from qregress.store.baselines import Key, Store
from qregress.store.finished import FinishedRun
from tests.store_making import CLASS, REASON, cells_of, files, make_asked
from tests.unit.store.making import FIRST, REFERENCE, SECOND, complaint, found, take


def test_read_after_write(store: Store) -> None:
    """Given an accepted run, then its entries are found with their figures, images and reason."""
    assert store.places() == [Key(CLASS, cell) for cell in sorted([REFERENCE, FIRST, SECOND])]
    assert found(store).baseline.scores is not None
    assert found(store).accepted.reason == REASON.why
    entry = found(store, REFERENCE)
    assert entry.baseline.images == ("images/00.webp", "images/01.webp")
    assert store.image(entry, "images/00.webp").startswith(b"RIFF")
    assert store.damage() == {}


def test_no_store(tmp_path: Path) -> None:
    """Given no folder, then it is an empty store, and reading it makes none."""
    store = Store(tmp_path / "baselines")
    store.check(writable=True)
    assert store.places() == []
    assert store.find(CLASS, FIRST) is None
    assert store.damage() == {}
    assert store.entries() == {}
    assert store.explain(CLASS, FIRST, make_asked()) == "no baselines in baselines/"
    store.copy(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_none(store: Store) -> None:
    """Given a device class or cell whose name would leave the folder, then nothing is written."""
    before = files(store.root)
    for key in (Key("../x", FIRST), Key(CLASS, "../../x"), Key("/etc", FIRST), Key(CLASS, "a/b"), Key("", FIRST)):
        text = complaint(lambda key=key: store.write(lambda _: ({key: {"x": b""}}, ())))  # type: ignore[misc]
        assert text == f"{key.path!r} is no place for a baseline; nothing was accepted"
    assert files(store.root) == before


def test_other_peoples_files(tmp_path: Path, run: Path) -> None:
    """Given a folder with other files, or a file, then nothing of it is touched."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.txt").write_text("years of work")
    store = Store(tmp_path / "thesis")
    assert complaint(lambda: take(store, run)) == (
        f"{store.root}: holds other files and no baselines; choose another folder for them"
    )
    assert files(store.root) == {"one.txt": b"years of work"}
    file = Store(tmp_path / "thesis" / "one.txt")
    assert complaint(lambda: take(file, run)).startswith(f"{file.root}: is a file, not a folder")
    assert "one.txt is read-only" in complaint(lambda: take(Store(file.root / "baselines"), run))


def test_hashes_only(store: Store, run: Path) -> None:
    """Given a store with images, when digests only are to be kept, then the images go."""
    with FinishedRun(run) as finished:
        accept(store, finished, cells_of(run), REASON, images=False)
    assert not [name for name in files(store.root) if "images" in name]
    assert found(store, REFERENCE).baseline.images == ()
    assert store.damage() == {}


def test_a_copy_is_whole(store: Store, tmp_path: Path) -> None:
    """Given a store, when it is copied, then the copy is a store with the same files."""
    store.copy(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(store.root)

"""The folder of baselines: damage in every kind of file is told in one line, and a write is all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from qregress.errors import StoreError
from qregress.record import SCHEMA, codec
from qregress.store import baselines, journal
from qregress.store.accept import accept
from qregress.store.atomic import locked
from qregress.store.baseline import ACCEPTED, BASELINE, Entry, seal
from qregress.store.baselines import MARK, Key, Store, differences
from qregress.store.finished import FinishedRun
from tests.store_making import CLASS, REASON, cells_of, files, make_asked, matrix_ids, write_matrix_run

REFERENCE, FIRST, SECOND = matrix_ids(2)
PLACE = f"{CLASS}/{FIRST}"


def found(store: Store, cell: str = FIRST) -> Entry:
    """An entry that is there."""
    entry = store.find(CLASS, cell)
    assert entry is not None
    return entry


def complaint(act: Callable[[], object]) -> str:
    """The one line of a store that cannot be read or written."""
    with pytest.raises(StoreError) as caught:
        act()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def take(store: Store, run: Path, cells: list[str] | None = None) -> None:
    """Accept a run."""
    with FinishedRun(run) as finished:
        accept(store, finished, cells_of(run) if cells is None else cells, REASON)


def other(tmp_path: Path) -> Path:
    """A later run whose every figure and image differs."""
    return write_matrix_run(tmp_path / "later", 2, step=7)


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


def test_another_device_class(store: Store) -> None:
    """Given a baseline of another kind of device, then the sentence names both kinds."""
    assert store.explain("cuda-h100", FIRST, make_asked()) == f"accepted on {CLASS} only, and this is cuda-h100"
    assert store.explain(CLASS, "pixart/x/bs1", make_asked()) == f"no baseline of this cell was accepted on {CLASS}"


def test_a_changed_configuration(store: Store) -> None:
    """Given a cell of which something else is asked for, then the sentence names what, before and now."""
    asked = make_asked("s00", workload={"prompts": ["a red circle"], "steps": 8, "guidance": 2.5}, call={"clean": True})
    assert store.explain(CLASS, FIRST, asked) == (
        "what is asked for has changed since its baseline was accepted: call's clean was the default and is true; "
        "call's guidance_scale was the default and is 2.5; call's num_inference_steps was 4 and is 8"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source_sha256": "6" * 64}, "the pipeline's files are others"),
        ({"reference_dtype": "bfloat16"}, "the reference ran in float16 and runs in bfloat16"),
        ({"initial_sha256": "2" * 64}, "the initial noise is another, as after a change of torch's random stream"),
        ({"setting": {}}, "setting's exclude was [\"s00\"] and is the default; setting's weights was"),
        (
            {"workload": {"prompts": ["x" * 100], "steps": 4}},
            'workload\'s prompts was ["a red circle"] and is ["' + "x" * 55 + "...",
        ),
    ],
)
def test_differences(change: dict[str, object], says: str) -> None:
    """Given one thing that is asked for otherwise, then it is named, shortened where it is long."""
    before = make_asked("s00")
    assert differences(before, before) == []
    text = "; ".join(differences(before, msgspec.structs.replace(before, **change)))
    assert text.startswith(says)


def test_where_an_argument_is_said() -> None:
    """Given steps that the pipeline says and no more the workload, then the same is asked for."""
    before = make_asked("s00", workload={"prompts": ["a red circle"], "steps": 8}, call={"num_inference_steps": 4})
    moved = msgspec.structs.replace(before, workload={"prompts": ["a red circle"]}, call={"num_inference_steps": 8})
    assert before.key == moved.key
    assert differences(before, moved) == []
    assert differences(before, msgspec.structs.replace(moved, call={"num_inference_steps": 4})) == [
        "call's num_inference_steps was 8 and is 4"
    ]


def test_a_whole_number_is_one_number() -> None:
    """Given guidance 3 in a call and 3.0 in a workload, then the same is asked for."""
    said = make_asked("s00", workload={"prompts": ["a red circle"]}, call={"guidance_scale": 3})
    other = make_asked("s00", workload={"prompts": ["a red circle"], "guidance": 3.0}, call={})
    assert said.key == other.key
    assert said.key != msgspec.structs.replace(said, call={"guidance_scale": 3.5}).key


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


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes wherever there is a bit or none")
def test_a_folder_without_write_permission(store: Store, tmp_path: Path) -> None:
    """Given a store whose folder may not be written, then accepting says so, and reading works."""
    later = other(tmp_path)
    store.root.chmod(0o555)
    try:
        assert "is read-only; nothing was accepted" in complaint(lambda: take(store, later))
        assert store.damage() == {}
    finally:
        store.root.chmod(0o755)


def test_a_read_only_store(store: Store, tmp_path: Path, read_only: Callable[[Path], Path]) -> None:
    """Given a store on a read-only file system, then accepting says so, and reading works."""
    there = Store(read_only(store.root))
    later = other(tmp_path)
    before = files(there.root)
    assert complaint(lambda: take(there, later)) == (
        f"{there.root}: cannot be written: {there.root} is read-only; nothing was accepted"
    )
    assert files(there.root) == before
    assert there.damage() == {}
    assert found(there) == found(store)


def test_a_read_only_store_with_what_a_killed_write_left(store: Store, read_only: Callable[[Path], Path]) -> None:
    """Given a read-only store where a write was killed before its plan, then it is read as it was."""
    (store.root / journal.FOLDER).mkdir()
    (store.root / journal.FOLDER / "00000").write_bytes(b"half a fi")
    there = Store(read_only(store.root))
    assert found(there).baseline.id == FIRST
    assert there.damage() == {}


def test_a_read_only_store_with_an_unfinished_write(
    store: Store, tmp_path: Path, read_only: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a read-only store where a write was killed after its plan, then one line says that it can't be finished."""
    later, before = other(tmp_path), found(store).baseline.scores
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", _stop)
        with pytest.raises(KeyboardInterrupt):
            take(store, later)
    there = Store(read_only(store.root))
    text = f"{there.root}: cannot finish the write that was interrupted here: Read-only file system"
    assert complaint(lambda: there.find(CLASS, FIRST)) == text
    assert complaint(lambda: take(there, later)) == text
    assert store.damage() == {}  # where it can be, it is finished
    assert found(store).baseline.scores != before


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_plan(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an unfinished write whose plan is damaged, then one line says so, and nothing is moved anywhere."""
    later = other(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", _stop)
        with pytest.raises(KeyboardInterrupt):
            take(store, later)
    plan = store.root / journal.FOLDER / "plan"
    plan.write_bytes(plan.read_bytes().replace(b"/s00/", b"/s0O/"))
    before = files(store.root)
    text = complaint(store.places)
    assert text == (
        f"{store.root / journal.FOLDER}: an interrupted write left a damaged plan; "
        "remove it, and restore the folder (git checkout)"
    )
    assert complaint(lambda: take(store, later)) == text
    assert files(store.root) == before


@pytest.mark.parametrize("free", [0, 1, 2, 5, 8])
def test_a_full_disk(store: Store, tmp_path: Path, mount: Callable[..., Path], free: int) -> None:
    """Given a disk with room for the old store and some blocks of the new, then nothing is lost or left behind."""
    root = mount("size=128k")
    there = Store(root / "baselines")
    store.copy(there.root)
    blocks = os.statvfs(root)
    filler = root / "filler"
    filler.write_bytes(bytes((blocks.f_bavail - free) * blocks.f_bsize))
    before, later = files(there.root), other(tmp_path)
    text = complaint(lambda: take(there, later))
    assert text == f"{there.root}: cannot be written: No space left on device; nothing was accepted"
    assert files(there.root) == before
    assert not journal.pending(there.root)
    assert there.damage() == {}
    filler.unlink()
    take(there, later)
    assert files(there.root) != before
    assert there.damage() == {}


def test_a_full_disk_for_a_copy(store: Store, mount: Callable[..., Path]) -> None:
    """Given no room for a copy, then one line says so, of the copy."""
    target = mount("size=16k") / "copy"
    text = complaint(lambda: store.copy(target))
    assert text.startswith(f"{target}: cannot be written: ")
    assert "No space left on device" in text


def test_a_write_that_fails_after_its_plan(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a failure once the plan stands, then it is not said that nothing was accepted, and the next finishes it."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    later = other(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", fail)
        assert complaint(lambda: take(store, later)) == (
            f"{store.root}: cannot be written: Input/output error; whoever opens it next finishes the write"
        )
    memory = found(store).baseline.memory
    assert memory is not None
    assert memory.static_bytes == 2**20 + 7 * 2**18


def test_a_reader_that_waited_for_a_writer_that_was_killed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a writer killed between a reader's first look and its lock, then the reader finishes the write first."""
    later = other(tmp_path)
    done: list[Path] = []

    def killed_meanwhile(path: Path, *, shared: bool = False) -> object:
        if shared and not done:
            done.append(path)
            with monkeypatch.context() as patch:
                patch.setattr(journal, "_carry_out", _half)
                with pytest.raises(KeyboardInterrupt):
                    take(Store(store.root), later)
        return locked(path, shared=shared)

    carry_out = journal._carry_out

    def _half(root: Path, plan: journal._Plan) -> None:
        names = dict(list(plan.puts.items())[: len(plan.puts) // 2])
        carry_out(root, msgspec.structs.replace(plan, puts=names, drops=()))
        raise KeyboardInterrupt

    monkeypatch.setattr(baselines, "locked", killed_meanwhile)
    entries = store.entries()
    assert done
    static = {
        entry.baseline.memory.static_bytes
        for entry in entries.values()
        if isinstance(entry, Entry) and entry.baseline.memory
    }
    assert static == {2**20 + 7 * 2**18}


#: Accepts runs in turns, or reads the store and prints what it saw, until its standard input ends.
BUSY = """
import json
import sys
from pathlib import Path
from qregress.store.accept import accept
from qregress.store.atomic import locked
from qregress.store.baseline import Entry
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from tests.store_making import REASON, cells_of
what, root, runs, times, part = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), int(sys.argv[4]), sys.argv[5]
print("ready", flush=True)
sys.stdin.readline()
seen = set()
for turn in range(times):
    if what == "write":
        run = Path(runs[turn % len(runs)])
        with FinishedRun(run) as finished:
            cells = cells_of(run)
            cells = cells if part == "all" else cells[int(part)::2]
            accept(Store(root), finished, cells, REASON)
    else:
        entries = Store(root).entries()
        assert all(isinstance(entry, Entry) for entry in entries.values()), entries
        seen.add((len(entries), *sorted({entry.baseline.memory.static_bytes for entry in entries.values()})))
        assert Store(root).damage() == {}
print(json.dumps(sorted(seen)))
"""


def together(*arguments: tuple[str, ...]) -> list[str]:
    """What processes say that start at the same time."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for given in arguments
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return [out.splitlines()[-1] for out, _ in said]


@pytest.mark.parametrize("attempt", range(3))
def test_two_first_accepts_of_different_cells(tmp_path: Path, attempt: int) -> None:
    """Given no store and two processes that each accept half of a run, then all of it is there."""
    run = write_matrix_run(tmp_path / "run", 9, timing=None)
    root = tmp_path / f"baselines-{attempt}"
    together(("write", str(root), str(run), "1", "0"), ("write", str(root), str(run), "1", "1"))
    store = Store(root)
    assert len(store.places()) == 10
    assert store.damage() == {}
    assert not journal.pending(root)


def test_two_accepts_of_the_same_cells_and_a_reader(tmp_path: Path) -> None:
    """Given two processes that accept two runs in turns, then a reader sees one run or the other, never both."""
    runs = [write_matrix_run(tmp_path / f"run-{step}", 5, step=step, timing=None) for step in (0, 7)]
    names = ",".join(map(str, runs))
    root = tmp_path / "baselines"
    take(Store(root), runs[0])
    *_, seen = together(
        ("write", str(root), names, "12", "all"),
        ("write", str(root), ",".join(names.split(",")[::-1]), "12", "all"),
        ("read", str(root), names, "40", "all"),
    )
    both = {(6, 2**20), (6, 2**20 + 7 * 2**18)}
    assert {tuple(one) for one in json.loads(seen)} <= both
    assert Store(root).damage() == {}
    assert not journal.pending(root)

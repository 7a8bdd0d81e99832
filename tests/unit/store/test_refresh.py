"""``--qregress-refresh``: what it takes, and where it writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from qregress.errors import ConfigError, StoreError
from qregress.judge.verdict import judge
from qregress.record import CellResult, Record
from qregress.store import accept as accepting
from qregress.store import journal, refresh
from qregress.store.accept import Reason, accept
from qregress.store.baseline import Entry
from qregress.store.baselines import Key, Store
from qregress.store.finished import FinishedRun
from qregress.store.refresh import PROPOSED, Refresh, parse
from tests.store_making import CLASS, REASON, files, make_asked, matrix_ids, rewrite, write_matrix_run

REFERENCE, FIRST, SECOND = matrix_ids(2)


def results(run: Path, *cells: str) -> list[CellResult]:
    """Those of a run, of which some are marked."""
    with FinishedRun(run) as finished:
        marks = dict.fromkeys(cells, "new")
        return [msgspec.structs.replace(result, accepted=marks.get(result.id)) for result in finished.run.cells]


def test_no_refresh() -> None:
    """Given no mode, then there is none; a reason alone is a mistake."""
    assert parse(None, None) is None
    with pytest.raises(ConfigError, match="add --qregress-refresh"):
        parse(None, "torch 2.14")


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [("missing", ["new"]), ("failing", ["changed", "failing"]), ("all", ["changed", "failing", "new", "same"])],
)
def test_modes(mode: str, kinds: list[str]) -> None:
    """Given a mode, then it takes the cells that it says."""
    found = parse(mode, "why", {})
    assert found is not None
    assert [kind for kind in ("changed", "failing", "new", "same") if found.wants(kind)] == kinds


@pytest.mark.parametrize(("mode", "reason"), [("all", None), ("failing", "  "), ("all", "\n")])
def test_overwriting_needs_a_reason(mode: str, reason: str | None) -> None:
    """Given a mode that overwrites, then it is refused without a reason; what is missing needs none."""
    with pytest.raises(ConfigError, match="overwrites baselines; say why"):
        parse(mode, reason, {})
    assert parse("missing", reason, {}) == Refresh("missing", "first record", proposed=False)


def test_an_unknown_mode() -> None:
    """Given a misspelt mode, then the nearest is named."""
    with pytest.raises(ConfigError, match="unknown mode 'mising'; did you mean 'missing'"):
        parse("mising", "x", {})


@pytest.mark.parametrize(
    ("value", "proposed"), [("true", True), ("1", True), ("TRUE", True), ("", False), ("0", False), ("False", False)]
)
def test_ci(value: str, *, proposed: bool) -> None:
    """Given CI=true, then what is refreshed is a proposal."""
    assert parse("all", "x", {"CI": value}) == Refresh("all", "x", proposed=proposed)


def test_only_marked_cells(tmp_path: Path, run: Path) -> None:
    """Given a run of which one cell is marked, then that cell becomes a baseline; without any, nothing is touched."""
    store = Store(tmp_path / "baselines")
    how = Refresh("missing", "first", proposed=False)
    assert refresh.write(how, store, run, results(run), "Ada", waived=(), images=True) is None
    assert not store.root.exists()
    found = refresh.write(how, store, run, results(run, FIRST), "Ada", waived=(), images=True)
    assert found is not None
    assert found[0] is store
    assert store.places() == [Key(CLASS, FIRST)]


def test_what_somebody_has_accepted_meanwhile(tmp_path: Path, run: Path) -> None:
    """Given cells marked new, when one is accepted by somebody before the run ends, then ``missing`` leaves that one.

    Its reviewed reason stays, though the run's figures are worse; the other cell gets its first record.
    """
    store = Store(tmp_path / "baselines")
    later = write_matrix_run(tmp_path / "later", 2, step=40)
    marked = results(later, FIRST, SECOND)
    with FinishedRun(run) as finished:
        accept(store, finished, [FIRST], Reason(by="Grace", why="reviewed"))
    before = files(store.root)
    how = Refresh("missing", "first record", proposed=False)
    found = refresh.write(how, store, later, marked, "Ada", waived=(), images=True)
    assert found is not None
    assert [(change.id, change.kind) for change in found[1].changes] == [(SECOND, "new")]
    after = files(store.root)
    assert {name: after[name] for name in before} == before
    assert {key.cell: store.find(key.device_class, key.cell).accepted.reason for key in store.places()} == {  # type: ignore[union-attr]
        FIRST: "reviewed",
        SECOND: "first record",
    }
    assert store.damage() == {}


@pytest.mark.parametrize("comparable", [True, False])
def test_what_is_accepted_while_cells_are_judged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, comparable: bool
) -> None:
    """Given a failing cell whose better baseline comes after it was judged, then it is judged once more, against that.

    A refresh of failing cells leaves it alone then: it is what has been accepted.
    """
    later = write_matrix_run(tmp_path / "later", 2, step=40)
    if not comparable:
        rewrite(later, FIRST, asked=make_asked("s00", call={"clean": True}))
    times: list[str] = []

    def judged(record: Record, *arguments: object, **options: object) -> CellResult:
        times.append(record.id)
        result = judge(record, *arguments, **options)  # type: ignore[arg-type]
        if len(times) == 1:
            with monkeypatch.context() as patch, FinishedRun(later) as finished:
                patch.setattr(accepting, "judge", judge)
                accept(store, finished, [FIRST], Reason(by="Grace", why="reviewed"))
        return result

    monkeypatch.setattr(accepting, "judge", judged)
    how = Refresh("failing", "torch 2.14", proposed=False)
    found = refresh.write(how, store, later, results(later, FIRST), "Ada", waived=(), images=True)
    assert found is not None
    assert found[1].changes == ()
    assert times == [FIRST, FIRST]
    entry = store.find(CLASS, FIRST)
    assert entry is not None
    assert entry.accepted.reason == "reviewed"


def test_a_damaged_image_is_replaced(store: Store, tmp_path: Path) -> None:
    """Given a reference that moved and whose accepted image is damaged, then a refresh of failing cells replaces it."""
    path = store.root / CLASS / REFERENCE / "images" / "00.webp"
    path.write_bytes(path.read_bytes() + b" ")
    later = write_matrix_run(tmp_path / "later", 2, step=40)
    how = Refresh("failing", "torch 2.14", proposed=False)
    found = refresh.write(how, store, later, results(later, REFERENCE), "Ada", waived=(), images=True)
    assert found is not None
    ((change),) = found[1].changes
    assert (change.id, change.kind) == (REFERENCE, "changed")
    assert change.words.startswith(f"{path}: is not what was accepted")
    assert store.damage() == {}


BUSY = """
import sys
from pathlib import Path
import msgspec
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from qregress.store.refresh import Refresh, write
root, run, mode, by, cells = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5].split(",")
with FinishedRun(run) as finished:
    found = [r for r in finished.run.cells if r.id in cells]
marked = [msgspec.structs.replace(result, accepted="new") for result in found]
print("ready", flush=True)
sys.stdin.readline()
how = Refresh(mode, by, proposed=False)
_, acceptance = write(how, Store(root), run, marked, by, waived=(), images=True)
print(",".join(change.id for change in acceptance.changes))
"""


def together(*arguments: tuple[str, ...]) -> list[set[str]]:
    """Which cells processes have refreshed that start at the same time."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [
        subprocess.Popen([sys.executable, "-c", BUSY, *given], text=True, env=environment, **pipes)  # type: ignore[call-overload]
        for given in arguments
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return [{cell for cell in out.splitlines()[-1].split(",") if cell} for out, _ in said]


@pytest.mark.parametrize("there", [False, True])
def test_two_refreshes_of_different_cells(tmp_path: Path, *, there: bool) -> None:
    """Given two processes that each refresh half of the cells, of no store or one, then each cell is its process's."""
    root = tmp_path / "baselines"
    ids = matrix_ids(9)
    runs = {name: write_matrix_run(tmp_path / name, 9, step=step) for name, step in (("Ada", 40), ("Grace", 41))}
    if there:
        with FinishedRun(write_matrix_run(tmp_path / "run", 9)) as finished:
            accept(Store(root), finished, ids, REASON)
    halves = {"Ada": ids[::2], "Grace": ids[1::2]}
    given = [(str(root), str(runs[by]), "all", by, ",".join(cells)) for by, cells in halves.items()]
    assert together(*given) == [set(halves["Ada"]), set(halves["Grace"])]
    store = Store(root)
    for by, cells in halves.items():
        for cell in cells:
            entry = store.find(CLASS, cell)
            assert entry is not None
            assert (entry.accepted.by, entry.accepted.reason) == (by, by)
    assert sorted(key.cell for key in store.places()) == sorted(ids)
    assert store.damage() == {}
    assert not journal.pending(root)


@pytest.mark.parametrize("attempt", range(2))
def test_two_refreshes_of_the_same_cells(tmp_path: Path, attempt: int) -> None:
    """Given two processes that refresh what is missing, the same cells, then one of them does, and nothing is mixed."""
    root = tmp_path / f"baselines-{attempt}"
    ids = matrix_ids(9)
    runs = [write_matrix_run(tmp_path / name, 9, step=step) for name, step in (("Ada", 40), ("Grace", 41))]
    found = together(*[(str(root), str(run), "missing", run.name, ",".join(ids)) for run in runs])
    assert sorted(map(len, found)) == [0, len(ids)]
    winner = runs[found.index(set(ids))].name
    store = Store(root)
    entries = store.entries()
    assert {entry.accepted.by for entry in entries.values() if isinstance(entry, Entry)} == {winner}
    assert len(entries) == len(ids)
    assert store.damage() == {}
    assert not journal.pending(root)


def test_a_proposal_is_a_whole_store(store: Store, tmp_path: Path) -> None:
    """Given CI, then the proposal holds every baseline, those refreshed and those not, and the store is as it was."""
    before = files(store.root)
    later = write_matrix_run(tmp_path / "later", 2, step=40)
    how = Refresh("all", "torch 2.14", proposed=True)
    found = refresh.write(how, store, later, results(later, FIRST), "Ada", waived=(), images=True)
    assert files(store.root) == before
    assert found is not None
    proposal = found[0]
    assert proposal.root == later / PROPOSED
    assert proposal.damage() == {}
    assert proposal.places() == store.places()
    changed = {name for name, data in files(proposal.root).items() if before.get(name) != data}
    assert changed == {f"{CLASS}/{FIRST}/{name}" for name in ("accepted.json", "baseline.json")}
    assert set(files(proposal.root)) == set(before)
    shutil.rmtree(store.root)
    shutil.copytree(proposal.root, store.root)  # it can take the store's place
    assert store.damage() == {}


def test_a_first_proposal(tmp_path: Path, run: Path) -> None:
    """Given CI and no store, then the proposal is one, and none is made."""
    store = Store(tmp_path / "baselines")
    how = Refresh("missing", "first", proposed=True)
    found = refresh.write(how, store, run, results(run, FIRST, SECOND), "Ada", waived=(), images=True)
    assert found is not None
    assert len(found[0].places()) == 2
    assert not store.root.exists()


def test_a_proposal_that_was_interrupted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a proposal whose process ended half-way, then nothing is there that looks like one; the next one works."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    later = write_matrix_run(tmp_path / "later", 2, step=40)
    how = Refresh("all", "torch 2.14", proposed=True)
    with monkeypatch.context() as patch:
        patch.setattr(refresh, "accept", stop)
        with pytest.raises(KeyboardInterrupt):
            refresh.write(how, store, later, results(later, FIRST), "Ada", waived=(), images=True)
    assert not (later / PROPOSED).exists()
    refresh.write(how, store, later, results(later, FIRST), "Ada", waived=(), images=True)
    assert Store(later / PROPOSED).damage() == {}


def test_a_store_that_cannot_be_written(tmp_path: Path, run: Path) -> None:
    """Given other files where the store should be, then one line says so."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.txt").touch()
    how = Refresh("all", "x", proposed=False)
    with pytest.raises(StoreError, match="holds other files and no baselines"):
        refresh.write(how, Store(tmp_path / "thesis"), run, results(run, FIRST), "Ada", waived=(), images=True)

"""``--qregress-refresh``: what it takes, and where it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from qregress.errors import ConfigError, StoreError
from qregress.record import CellResult
from qregress.store import refresh
from qregress.store.baselines import Key, Store
from qregress.store.finished import FinishedRun
from qregress.store.refresh import PROPOSED, Refresh, parse
from tests.store_making import CLASS, files, matrix_ids, write_matrix_run

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

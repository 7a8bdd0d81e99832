"""Which finished cells become baselines, and that a second accept of an equal run changes nothing."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qregress.errors import ConfigError, StoreError
from qregress.judge.waivers import Waiver
from qregress.record import Coverage, ModuleCoverage, Problem, Roundtrip, Scores, Timing
from qregress.store.accept import KINDS, Acceptance, Kind, Reason, accept
from qregress.store.baseline import ACCEPTED, BASELINE, seal
from qregress.store.baselines import Key, Store
from qregress.store.finished import FinishedRun
from tests.making import make_layer
from tests.store_making import (
    CLASS,
    REASON,
    cells_of,
    files,
    finished_record,
    make_asked,
    make_fingerprint,
    make_noise,
    matrix_ids,
    rewrite,
    write_matrix_run,
    write_run,
)

REFERENCE, FIRST, SECOND = matrix_ids(2)
AGAIN = Reason(by="Grace", why="again")


def take(store: Store, run: Path, **options: Any) -> Acceptance:
    """Accept all cells of a run."""
    with FinishedRun(run) as finished:
        return accept(store, finished, cells_of(run), AGAIN, **options)


def kinds(found: Acceptance) -> dict[str, str]:
    """What was accepted, by cell."""
    return {change.id: change.kind for change in found.changes}


def test_accepting_an_equal_run_again(store: Store, tmp_path: Path) -> None:
    """Given an accepted run, when the same is measured and accepted again, then only the acts of accepting differ.

    Seconds are another time's; images, figures and all other files are the same bytes.
    """
    before = files(store.root)
    again = write_matrix_run(tmp_path / "again", 2)
    rewrite(again, FIRST, timing=Timing(samples_s=(3.0,) * 8, reference_s=(2.9,) * 8), seconds=99.0)
    found = take(store, again)
    assert kinds(found) == dict.fromkeys([REFERENCE, FIRST, SECOND], "same")
    after = files(store.root)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{CLASS}/{cell}/{ACCEPTED}" for cell in (REFERENCE, FIRST, SECOND)}
    assert any(name.endswith(".webp") for name in after)
    assert store.damage() == {}


def test_accepting_a_later_run(store: Store, tmp_path: Path) -> None:
    """Given a run whose every figure is worse, when it is accepted, then that is said, and every file is new."""
    before = files(store.root)
    found = take(store, write_matrix_run(tmp_path / "later", 2, step=40))
    assert kinds(found) == dict.fromkeys([REFERENCE, FIRST, SECOND], "failing")
    assert {change.before.accepted.reason for change in found.changes if change.before} == {REASON.why}
    same = {name for name, data in files(store.root).items() if data == before[name]}
    assert same == {"qregress-baselines.json", ".gitignore", ".gitattributes"}


def test_what_an_acceptance_says(store: Store) -> None:
    """Given an accepted cell, then who, when, why, from which run and commit is kept, and where it ran."""
    entry = store.find(CLASS, FIRST)
    assert entry is not None
    accepted = entry.accepted
    assert (accepted.by, accepted.reason) == (REASON.by, REASON.why)
    assert (accepted.run, accepted.commit) == ("2026-01-01T00:00:00+00:00", "c" * 40)
    assert dt.datetime.fromisoformat(accepted.at).tzinfo is not None
    assert accepted.fingerprint == make_fingerprint()
    assert set(accepted.files) == {BASELINE}


MODULE = ModuleCoverage(
    name="proj", module="Linear", expected="int8", found=None, tensor="Parameter", dtype="float16", bytes=64
)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "crashed": ({"status": "crashed", "message": "out of memory"}, "it did not run to its end: out of memory"),
    "not run": ({"status": "not-run"}, "it did not run to its end: not-run"),
    "insane": (
        {"scores": Scores(problems=(Problem(prompt=0, kind="black", detail="all 0"),))},
        "quality.sanity fails, which no baseline changes (prompt 0: black, all 0)",
    ),
    "not quantized": (
        {"coverage": {"transformer": Coverage(modules=(MODULE,), asked="int8")}},
        "coverage.manifest fails, which no baseline changes (transformer: 1 of 1 modules are float16 instead of int8",
    ),
    "a wrong kernel": (
        {"fidelity": {"transformer": (make_layer(excess=3.0, error=0.1, where="everywhere", kind="not shaped"),)}},
        "kernel.fidelity fails, which no baseline changes (transformer: ",
    ),
    "another image": (
        {"roundtrip": Roundtrip(disk_bytes=8, components={}, equal=False, latents=(0.5,), dtype="float16")},
        "roundtrip.images fails, which no baseline changes (",
    ),
    "not repeatable": ({"reference_repeatable": False}, "its reference did not repeat itself within the run"),
    "without device": ({"fingerprint": None}, "its record does not say on which kind of device"),
    "without asked": ({"asked": None}, "its record does not say what was asked for: made by an older qregress"),
    "without latents": ({"latents_sha256": None}, "its record does not say what was asked for"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_refused(tmp_path: Path, change: str) -> None:
    """Given a cell that may be no baseline, then it is refused in words, and the others are accepted."""
    fields, says = REFUSED[change]
    run = write_run(tmp_path / "run", [finished_record(REFERENCE), finished_record(FIRST, **fields)])
    store = Store(tmp_path / "baselines")
    found = take(store, run)
    assert list(found.refused) == [FIRST]
    assert found.refused[FIRST].startswith(says)
    assert store.places() == [Key(CLASS, REFERENCE)]


@pytest.mark.parametrize("change", ["insane", "not quantized"])
def test_a_waiver_lets_it_pass(tmp_path: Path, change: str) -> None:
    """Given a cell that fails as a waiver says it does, then it may become a baseline, until the waiver's last day."""
    fields, says = REFUSED[change]
    run = write_run(tmp_path / "run", [finished_record(FIRST, **fields)])
    check = says.split()[0]
    waiver = Waiver(
        cell="pixart/*/*", check=check, reason="known", issue="https://x.org/1", expires=dt.date(9999, 1, 1)
    )
    store = Store(tmp_path / "baselines")
    assert kinds(take(store, run, waived=[waiver])) == {FIRST: "new"}
    expired = msgspec.structs.replace(waiver, expires=dt.date(2020, 1, 1))
    assert list(take(store, run, waived=[expired]).refused) == [FIRST]


def test_a_cell_without_record(tmp_path: Path, run: Path) -> None:
    """Given a run that names a cell of which it has no record, then that cell is refused."""
    (run / "cells" / FIRST / "record.json").unlink()
    found = take(Store(tmp_path / "baselines"), run)
    assert found.refused == {FIRST: "the run has no record of it"}
    assert len(found.changes) == 2


def test_noise_is_carried_over(store: Store, tmp_path: Path) -> None:
    """Given a run that measured no noise, then the floor of the baseline before stays, and it is said whose it is."""
    for started in ("2026-02-02T00:00:00+00:00", "2026-03-03T00:00:00+00:00"):
        later = write_run(tmp_path / "later", [finished_record(FIRST, step=40, noise=None)], started=started)
        take(store, later)
        entry = store.find(CLASS, FIRST)
        assert entry is not None
        assert entry.baseline.noise == make_noise()
        assert (entry.accepted.run, entry.accepted.noise_from) == (started, "2026-01-01T00:00:00+00:00")
    take(store, write_run(tmp_path / "measured", [finished_record(FIRST, noise=make_noise(0.002))]))
    entry = store.find(CLASS, FIRST)
    assert entry is not None
    assert (entry.baseline.noise, entry.accepted.noise_from) == (make_noise(0.002), None)


def test_noise_is_not_carried_to_something_else(store: Store, tmp_path: Path) -> None:
    """Given a run of another request that measured no noise, then there is no floor: it would be another cell's."""
    asked = make_asked("s00", call={"clean": True})
    found = take(store, write_run(tmp_path / "later", [finished_record(FIRST, asked=asked, noise=None)]))
    assert kinds(found) == {FIRST: "changed"}
    assert found.changes[0].words == "call's clean was the default and is true"
    entry = store.find(CLASS, FIRST)
    assert entry is not None
    assert entry.baseline.noise is None


@pytest.mark.parametrize(
    "taken", [set(KINDS), {"new"}, {"failing", "changed"}, {"same"}, set()], ids=lambda taken: "-".join(sorted(taken))
)
def test_kinds(tmp_path: Path, taken: set[Kind]) -> None:
    """Given new, failing, changed and equal cells, when only some are accepted, then no other is touched."""
    names = [f"pixart/{name}/bs1" for name in ("failing", "changed", "same", "new")]
    store = Store(tmp_path / "baselines")
    take(store, write_run(tmp_path / "first", [finished_record(name) for name in names[:3]]))
    before = files(store.root)
    records = [
        finished_record(names[0], step=40),
        finished_record(names[1], asked=make_asked("changed", source_sha256="6" * 64)),
        *(finished_record(name) for name in names[2:]),
    ]
    later = write_run(tmp_path / "later", records, started="2026-02-02T00:00:00+00:00")
    found = take(store, later, kinds=taken)
    assert set(kinds(found).values()) == taken
    assert all(cell == f"pixart/{kind}/bs1" for cell, kind in kinds(found).items())
    changed = {name.split("/")[2] for name, data in files(store.root).items() if before.get(name) != data}
    assert changed == taken


def test_a_damaged_baseline_is_replaced_and_not_called_new(store: Store, run: Path) -> None:
    """Given an edited baseline, when its cell is accepted, then it is replaced, as changed: there was one."""
    path = store.root / CLASS / FIRST / BASELINE
    path.write_bytes(path.read_bytes().replace(b"0.01", b"0.02"))
    assert kinds(take(store, run, kinds=("new",))) == {}
    found = take(store, run, kinds=("failing", "changed"))
    assert kinds(found) == {FIRST: "changed"}
    assert "its SHA-256 differs" in found.changes[0].words
    assert store.damage() == {}


def test_dry_run(store: Store, tmp_path: Path) -> None:
    """Given --dry-run, then what would change is told as if it had, and nothing is written: no folder, either."""
    later = write_matrix_run(tmp_path / "later", 2, step=40)
    before = files(store.root)
    dry = take(store, later, dry=True)
    assert files(store.root) == before
    assert kinds(dry) == kinds(take(store, later))
    nowhere = Store(tmp_path / "a" / "b")
    assert set(kinds(take(nowhere, later, dry=True)).values()) == {"new"}
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("note", [None, "quality not judged: random weights"])
def test_images_are_kept_where_they_mean_something(tmp_path: Path, note: str | None) -> None:
    """Given references of trained and of random weights, then only images of trained ones are kept; no cell's are."""
    scores = Scores(clip=(30.0, 30.0), note=note)
    run = write_run(tmp_path / "run", [finished_record(REFERENCE, scores=scores), finished_record(FIRST)])
    store = Store(tmp_path / "baselines")
    take(store, run)
    kept = {name.split("/")[2] for name in files(store.root) if name.endswith(".webp")}
    assert kept == (set() if note else {"reference"})


def test_an_image_that_cannot_be_read(store: Store, tmp_path: Path) -> None:
    """Given a reference's image that is damaged, then nothing is accepted, and it's not the store that's blamed."""
    later = write_matrix_run(tmp_path / "later", 2, step=40)
    (later / "cells" / REFERENCE / "images" / "01.png").write_bytes(b"no image")
    before = files(store.root)
    with pytest.raises(ConfigError, match=r"later: cells/pixart/reference/bs1/images/01\.png is no image"):
        take(store, later)
    assert files(store.root) == before


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "", "cpu\n", "."])
def test_a_device_class_that_is_a_path(tmp_path: Path, name: str) -> None:
    """Given a record whose device class would lead out of the store, then nothing is written anywhere."""
    run = write_run(tmp_path / "run", [finished_record(FIRST, fingerprint=make_fingerprint(device_class=name))])
    before = set(files(tmp_path))
    store = Store(tmp_path / "baselines")
    if name:
        with pytest.raises(StoreError, match="is no place for a baseline; nothing was accepted"):
            take(store, run)
    else:
        assert list(take(store, run).refused) == [FIRST]
    assert set(files(tmp_path)) == before


def test_a_package_named_like_the_seal(tmp_path: Path) -> None:
    """Given names in a record that look like the place of the digest, then only its own place is filled."""
    fingerprint = make_fingerprint(packages={"sha256": "", 'x"sha256": ""': ""})
    run = write_run(tmp_path / "run", [finished_record(FIRST, fingerprint=fingerprint)])
    store = Store(tmp_path / "baselines")
    take(store, run)
    assert store.damage() == {}
    entry = store.find(CLASS, FIRST)
    assert entry is not None
    assert entry.accepted.fingerprint == fingerprint
    assert json.loads(seal(entry.accepted))["sha256"] == entry.accepted.sha256

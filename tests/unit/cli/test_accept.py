"""``qregress accept``: what it takes, what it says, what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qregress.store.baselines import Store
from tests.store_making import (
    CLASS,
    files,
    finished_record,
    make_asked,
    matrix_ids,
    pack,
    rewrite,
    write_matrix,
    write_run,
)

Verb = Callable[..., tuple[int, str, str]]
REFERENCE, FIRST, SECOND = matrix_ids(2)


def cells(root: Path) -> list[str]:
    """Those with a baseline."""
    return [key.cell for key in Store(root / "baselines").places()]


def test_accept(runs: Path, verb: Verb) -> None:
    """Given a run, when it is accepted, then all cells are baselines with the reason; a table says before and after."""
    code, out, err = verb("accept", "first", "--reason", "first record ✓")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"accepted 3 new in {runs / 'baselines'}"
    assert cells(runs) == sorted([REFERENCE, FIRST, SECOND])
    entry = Store(runs / "baselines").find(CLASS, FIRST)
    assert entry is not None
    assert entry.accepted.reason == "first record ✓"
    code, out, _ = verb("accept", "later", "--reason=upgrade")
    assert code == 0
    (line,) = (line for line in out.splitlines() if line.startswith(FIRST))
    assert "failing" in line
    assert "1.000 MiB -> 11.000 MiB" in line
    assert out.splitlines()[-1] == f"accepted 3 failing in {runs / 'baselines'}"


def test_accepting_again_changes_no_byte_but_the_acts(runs: Path, verb: Verb) -> None:
    """Given an accepted run, when an equal one is accepted, then only each entry's accepted.json is another."""
    verb("accept", "first", "--reason=first")
    before = files(runs / "baselines")
    code, out, _ = verb("accept", "equal", "--reason=second")
    assert (code, out.splitlines()[-1]) == (0, f"accepted 3 same in {runs / 'baselines'}")
    after = files(runs / "baselines")
    changed = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    assert changed == {f"{CLASS}/{cell}/accepted.json" for cell in (REFERENCE, FIRST, SECOND)}


def test_an_archive(runs: Path, verb: Verb) -> None:
    """Given CI's archive of a run with one folder at its top, then it is accepted like the folder."""
    pack(runs / "first", runs / "artifact.zip", top="qregress-run/")
    assert verb("accept", "artifact.zip", "--reason=x")[0] == 0
    assert len(cells(runs)) == 3


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [("s00", [FIRST]), ("pixart and not reference", [FIRST, SECOND]), ("S01 or reference", [REFERENCE, SECOND])],
)
def test_k(runs: Path, verb: Verb, expression: str, chosen: list[str]) -> None:
    """Given -k, then only cells that it matches are accepted, as pytest matches."""
    assert verb("accept", "first", "--reason=x", "-k", expression)[0] == 0
    assert cells(runs) == chosen


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["first"], "the following arguments are required: --reason; see qregress accept --help"),
        (["first", "--reason="], "--reason: empty; say why these become baselines"),
        (["first", "--reason", " \n"], "--reason: empty; say why these become baselines"),
        (["first", "--reason=x", "-k", "nothing"], "-k 'nothing' matches none of 3 cells: pixart/reference/bs1"),
        (["first", "--reason=x", "-k", "and and"], "-k 'and and': "),
        (["nowhere", "--reason=x"], "nowhere: no such run; name a folder with a run.json"),
        (["pipeline", "--reason=x"], "pipeline: holds no run.json"),
        (["qregress.toml", "--reason=x"], "qregress.toml: neither a folder nor a zip archive"),
        (["first", "--reason=x", "--baselines=pipeline"], "pipeline: holds other files and no baselines"),
        (["first", "--reason=x", "--baselines=qregress.toml"], "qregress.toml: is a file, not a folder"),
        (["first", "--reason=x", "--only=same"], "argument --only: invalid choice: 'same'"),
    ],
)
def test_mistakes(runs: Path, verb: Verb, arguments: list[str], says: str) -> None:
    """Given a mistake, then one line says what is expected, with 4, and nothing is written."""
    before = files(runs)
    code, out, err = verb("accept", *arguments)
    assert (code, out) == (4, "")
    assert err.startswith(f"ERROR: {says}")
    assert len(err.splitlines()) == 1
    assert files(runs) == before
    assert not (runs / "baselines").exists()


def test_no_baselines_wanted(runs: Path, verb: Verb) -> None:
    """Given a configuration without baselines, then accepting is a mistake."""
    write_matrix(runs, 2, more='[baselines]\nstore = "none"')
    code, _, err = verb("accept", "first", "--reason=x")
    assert code == 4
    assert err.endswith('[baselines] store = "none": this configuration has no baselines\n')


def test_hash_only(runs: Path, verb: Verb) -> None:
    """Given store = "hash", then no image is kept."""
    write_matrix(runs, 2, more='[baselines]\nstore = "hash"')
    assert verb("accept", "first", "--reason=x")[0] == 0
    assert {Path(name).suffix for name in files(runs / "baselines")} == {".json", ""}


def test_dry_run(runs: Path, verb: Verb) -> None:
    """Given --dry-run, then the table is shown and nothing is written, no folder either."""
    before = files(runs)
    code, out, _ = verb("accept", "first", "--reason=x", "--dry-run")
    assert code == 0
    assert out.splitlines()[-2:] == [f"accepted 3 new in {runs / 'baselines'}", "dry run: nothing was written"]
    assert files(runs) == before
    assert not (runs / "baselines").exists()


def test_only(runs: Path, verb: Verb) -> None:
    """Given --only new or failing, then other cells keep their baselines."""
    verb("accept", "first", "--reason=x", "-k", "s00")
    code, out, _ = verb("accept", "later", "--reason=x", "--only=new")
    assert (code, out.splitlines()[-1]) == (0, f"accepted 2 new in {runs / 'baselines'}")
    code, out, _ = verb("accept", "later", "--reason=x", "--only=failing")
    assert (code, out.splitlines()[-1]) == (0, f"accepted 1 failing in {runs / 'baselines'}")
    code, out, _ = verb("accept", "later", "--reason=x", "--only=failing")
    assert (code, out.splitlines()[-1]) == (0, f"nothing was accepted in {runs / 'baselines'}")


def test_cell(runs: Path, verb: Verb) -> None:
    """Given --cell, then that cell alone is accepted, and none whose id starts alike."""
    write_matrix(runs, 2, more='[workloads.bs10]\nprompts = ["a red circle"]')
    write_run(runs / "alike", [finished_record(cell) for cell in (REFERENCE, FIRST, f"{FIRST}0")])
    assert verb("accept", "alike", "--reason=x", "--cell", FIRST)[0] == 0
    assert cells(runs) == [FIRST]


def test_only_failing_takes_changed_ones(runs: Path, verb: Verb) -> None:
    """Given --only failing, then a cell of which something else is asked for is taken too, and an equal one is not."""
    verb("accept", "first", "--reason=x")
    rewrite(runs / "equal", FIRST, asked=make_asked("s00", call={"clean": True}))
    code, out, _ = verb("accept", "equal", "--reason=y", "--only=failing")
    assert (code, out.splitlines()[-1]) == (0, f"accepted 1 changed in {runs / 'baselines'}")


def test_an_incomplete_run(runs: Path, verb: Verb) -> None:
    """Given a run that was interrupted, then that is said beside what is accepted; of a complete one it is not."""
    assert verb("accept", "equal", "--reason=x")[2] == ""
    path = runs / "first" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"complete": False}))
    code, _, err = verb("accept", "first", "--reason=x")
    assert (code, err) == (0, "the run is incomplete: it was interrupted, or is still under way\n")
    assert len(cells(runs)) == 3


def test_a_refused_cell(runs: Path, verb: Verb) -> None:
    """Given a crashed cell in a run, then it is named, the others are accepted, and the exit code is 1."""
    rewrite(runs / "first", FIRST, status="crashed", message="out of memory")
    code, out, _ = verb("accept", "first", "--reason=x")
    assert code == 1
    assert f"{FIRST}: NOT accepted: it did not run to its end: out of memory" in out.splitlines()
    assert cells(runs) == [REFERENCE, SECOND]


def test_a_foreign_cell(runs: Path, verb: Verb) -> None:
    """Given a run of another configuration, then cells that are in this one are accepted, others are named."""
    write_matrix(runs, 1)
    code, _, err = verb("accept", "first", "--reason=x")
    assert (code, err) == (1, f"{SECOND}: NOT accepted: no cell of qregress.toml has this id\n")
    assert cells(runs) == sorted([REFERENCE, FIRST])


def test_an_id_that_is_a_path(runs: Path, verb: Verb) -> None:
    """Given a run.json whose cell is a path out of it, then one line refuses the run."""
    path = runs / "first" / "run.json"
    value = json.loads(path.read_bytes())
    value["cells"][0]["id"] = "../../x"
    path.write_text(json.dumps(value))
    code, out, err = verb("accept", "first", "--reason=x")
    assert (code, out) == (4, "")
    assert err == "ERROR: first: '../../x' is no cell's id; the run's files are not what a run writes\n"

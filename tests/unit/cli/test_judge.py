"""``qregress judge``: a finished run under today's limits, waivers and baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from qregress.record import Run, encode, read
from qregress.store.baselines import MARK
from tests.store_making import CLASS, files, finished_record, matrix_ids, pack, rewrite, write_matrix, write_run

Verb = Callable[..., tuple[int, str, str]]
REFERENCE, FIRST, SECOND = matrix_ids(2)


def test_without_baselines(runs: Path, verb: Verb) -> None:
    """Given no baselines, then it is said that nothing was compared; --require makes that a failure."""
    before = files(runs)
    code, out, _ = verb("judge", "first")
    assert code == 0
    assert "3 cells NOT compared with a baseline: no baselines in baselines/" in out.splitlines()
    assert verb("judge", "first", "--require")[0] == 1
    assert files(runs) == before
    assert not (runs / "baselines").exists()


@pytest.mark.usefixtures("runs")
def test_against_baselines(verb: Verb) -> None:
    """Given baselines, then an equal run is green, and a worse one fails by name with its figures."""
    verb("accept", "first", "--reason=x")
    code, out, _ = verb("judge", "equal")
    assert (code, out.splitlines()[-1]) == (0, "3 pass")
    code, out, _ = verb("judge", "later")
    assert code == 1
    assert f"{FIRST}: regression.lpips, regression.latents, regression.memory" in out
    assert f"{REFERENCE}: drift.reference" in out
    assert out.splitlines()[-1] == "3 fail"


def test_archive_and_json(runs: Path, verb: Verb) -> None:
    """Given an archive and --json, then the new verdicts are written there, and the run stays as it is."""
    archive = pack(runs / "later", runs / "later.zip")
    verb("accept", "first", "--reason=x")
    before = archive.read_bytes()
    assert verb("judge", str(archive), "--json", "out/judged.json")[0] == 1
    judged = read(runs / "out" / "judged.json", Run)
    assert [(result.id, result.verdict) for result in judged.cells] == [
        (cell, "fail") for cell in (REFERENCE, FIRST, SECOND)
    ]
    assert archive.read_bytes() == before
    code, _, err = verb("judge", str(archive), "--json", "qregress.toml/x")
    assert code == 4
    assert err.startswith("ERROR: qregress.toml/x: cannot be written: ")


def test_budgets_of_today(runs: Path, verb: Verb) -> None:
    """Given a budget that was set after the run, then it is held against it."""
    write_matrix(runs, 2, more='[budgets]\nlpips = 0.005\n[baselines]\nstore = "none"')
    code, out, _ = verb("judge", "first")
    assert code == 1
    assert "quality.lpips: mean LPIPS 0.0100 over 0.005" in out
    assert "NOT compared" not in out


def waiver(check: str, cell: str = "pixart/s00/*", expires: str = "9999-01-01") -> str:
    """A waiver's table."""
    lines = [f'cell = "{cell}"', f'check = "{check}"', 'reason = "known"', 'issue = "https://example.org/1"']
    return "\n".join(["[[waivers]]", *lines, f"expires = {expires}", ""])


def test_waivers_of_today(runs: Path, verb: Verb) -> None:
    """Given a waiver, then what it names is waived until its day, and a failure where it passes."""
    verb("accept", "first", "--reason=x")
    names = ("lpips", "latents", "memory")
    write_matrix(runs, 2, more="".join(waiver(f"regression.{name}") for name in names))
    code, out, _ = verb("judge", "later", "-k", "s00")
    assert (code, out.splitlines()[-1]) == (0, "1 waived")
    code, out, _ = verb("judge", "equal", "-k", "s00")
    assert code == 1
    assert "a waiver says that it fails: take the waiver out" in out
    write_matrix(runs, 2, more="".join(waiver(f"regression.{name}", expires="2020-01-01") for name in names))
    code, out, _ = verb("judge", "later", "-k", "s00")
    assert code == 1
    assert "its waiver expired on 2020-01-01" in out


def test_a_damaged_baseline(runs: Path, verb: Verb) -> None:
    """Given an edited baseline, then judging ends with one line and 4: what it says is worth nothing."""
    verb("accept", "first", "--reason=x")
    path = runs / "baselines" / CLASS / FIRST / "baseline.json"
    path.write_text(path.read_text().replace("0.01", "0.9"))
    code, out, err = verb("judge", "equal")
    assert (code, out) == (4, "")
    assert err.startswith(f"ERROR: {path}: is not what was accepted (its SHA-256 differs)")
    assert len(err.splitlines()) == 1


def test_a_missing_mark(runs: Path, verb: Verb) -> None:
    """Given baselines whose mark is gone, then no run is green for it."""
    verb("accept", "first", "--reason=x")
    (runs / "baselines" / MARK).unlink()
    code, _, err = verb("judge", "later")
    assert code == 4
    assert err.startswith(f"ERROR: {runs / 'baselines' / MARK}: is missing, and ")


@pytest.mark.usefixtures("runs")
def test_a_cell_that_is_no_longer_asked_for(runs: Path, verb: Verb) -> None:
    """Given a run with a cell that today's configuration does not know, then --require does not pass over it."""
    verb("accept", "first", "--reason=x")
    write_matrix(runs, 1)
    code, out, _ = verb("judge", "equal")
    assert (code, out.splitlines()[-1]) == (0, f"{SECOND}: not judged: no cell of qregress.toml has this id")
    assert verb("judge", "equal", "--require")[0] == 1


@pytest.mark.usefixtures("runs")
def test_a_run_of_a_selection(runs: Path, verb: Verb) -> None:
    """Given a run of a selection, then --require asks for its cells; for all where there is no such selection now."""
    verb("accept", "first", "--reason=x")
    path = runs / "equal" / "run.json"
    run = read(path, Run)
    kept = tuple(result for result in run.cells if result.id != SECOND)
    path.write_bytes(encode(msgspec.structs.replace(run, cells=kept, selection="quick")))
    assert verb("judge", "equal", "--require")[0] == 1
    write_matrix(runs, 2, more='[selections]\nquick = ["pixart/s00/*", "pixart/reference/*"]\n')
    code, out, _ = verb("judge", "equal", "--require")
    assert (code, out.splitlines()[-1]) == (0, "2 pass")


@pytest.mark.parametrize("name", ["qregress.toml", "qregress.toml/x"])
def test_no_store(runs: Path, verb: Verb, name: str) -> None:
    """Given a file for a store, then that is no empty store."""
    before = files(runs)
    code, _, err = verb("judge", "first", f"--baselines={name}")
    if name == "qregress.toml":
        assert (code, err.startswith("ERROR: qregress.toml: is a file, not a folder")) == (4, True)
    else:
        assert code == 0  # a store that is not there yet
    assert files(runs) == before


def test_a_missing_record(runs: Path, verb: Verb) -> None:
    """Given a run without one of its records, then one line says which."""
    (runs / "first" / "cells" / FIRST / "record.json").unlink()
    code, _, err = verb("judge", "first")
    assert (code, err) == (
        4,
        f"ERROR: first: run.json names {FIRST}, but there is no record of it; take the whole folder\n",
    )


def test_a_foreign_cell(runs: Path, verb: Verb) -> None:
    """Given cells that the configuration does not have, then they are named and not judged; with none left it is 5."""
    write_matrix(runs, 1)
    code, out, _ = verb("judge", "first")
    assert code == 0
    assert f"{SECOND}: not judged: no cell of qregress.toml has this id" in out.splitlines()
    assert verb("judge", "first", "-k", "s01")[0] == 5


def test_a_crashed_cell(runs: Path, verb: Verb) -> None:
    """Given a cell that crashed, then it is a failure whatever the baselines say."""
    rewrite(runs / "first", FIRST, status="crashed", message="out of memory")
    code, out, _ = verb("judge", "first")
    assert code == 1
    assert f"{FIRST}: crashed: out of memory" in out


def incomplete(run: Path) -> None:
    """As an interrupted run, or one under way, leaves it."""
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"complete": False}))


def test_an_incomplete_run(runs: Path, verb: Verb) -> None:
    """Given a run that was interrupted, then that is said, once; of a complete one it is not."""
    says = "the run is incomplete: it was interrupted, or is still under way"
    assert says not in verb("judge", "first")[1]
    incomplete(runs / "first")
    _, out, _ = verb("judge", "first")
    assert out.splitlines().count(says) == 1


def test_cells_that_the_run_lacks(runs: Path, verb: Verb) -> None:
    """Given cells of the configuration that the run has no verdict of, then they are not run, in the JSON file too.

    --require makes that a failure, and only that; where cells are chosen, nobody asked for the others.
    """
    write_matrix(runs, 3, 2)
    third, *more = [cell for cell in matrix_ids(3, 2) if cell not in (REFERENCE, FIRST, SECOND)]
    verb("accept", "first", "--reason=x")
    code, out, _ = verb("judge", "equal", "--json=judged.json")
    assert code == 0
    assert "5 cells NOT run: the run has no verdict of it" in out.splitlines()
    assert out.splitlines()[-1] == "3 pass, 5 not-run"
    assert read(runs / "judged.json", Run).not_run == dict.fromkeys([third, *more], "the run has no verdict of it")
    assert verb("judge", "equal", "--require")[0] == 1
    for chosen in (["-k", "bs1 and not s02"], ["--cell", REFERENCE, "--cell", FIRST, "--cell", SECOND]):
        code, out, _ = verb("judge", "equal", "--require", *chosen)
        assert (code, out.splitlines()[-1]) == (0, "3 pass")
    write_matrix(runs, 2)
    assert verb("judge", "equal", "--require")[0] == 0


def test_a_reason_that_the_run_gives(runs: Path, verb: Verb) -> None:
    """Given a cell that the run says why it has not run, then that reason stays."""
    write_matrix(runs, 3)
    (third,) = set(matrix_ids(3)) - {REFERENCE, FIRST, SECOND}
    path = runs / "first" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"not_run": {third: "needs cuda"}}))
    _, out, _ = verb("judge", "first")
    assert "1 cells NOT run: needs cuda" in out.splitlines()
    assert "no verdict" not in out


def test_one_cell_exactly(runs: Path, verb: Verb) -> None:
    """Given --cell, then that cell alone, and none whose id starts or ends alike; -k narrows it further."""
    long = f"{FIRST}0"
    write_matrix(runs, 2, more='[workloads.bs10]\nprompts = ["a red circle"]')
    write_run(runs / "alike", [finished_record(cell) for cell in (REFERENCE, FIRST, long)])
    for name in (FIRST, long):
        code, _, _ = verb("judge", "alike", "--cell", name, "--json=judged.json")
        assert code == 0
        assert [result.id for result in read(runs / "judged.json", Run).cells] == [name]
    verb("judge", "alike", "-k", FIRST, "--json=judged.json")
    assert [result.id for result in read(runs / "judged.json", Run).cells] == [FIRST, long]
    code, _, err = verb("judge", "alike", "--cell", FIRST, "-k", "reference")
    assert (code, err.startswith("ERROR: -k 'reference' matches none of 1 cells")) == (4, True)


@pytest.mark.usefixtures("runs")
def test_an_unknown_cell(verb: Verb) -> None:
    """Given --cell with a misspelt id, even beside a right one, then one line names the nearest."""
    for verb_name in (("judge", "first"), ("accept", "first", "--reason=x"), ("compare", "first", "later")):
        code, out, err = verb(*verb_name, "--cell", FIRST, "--cell=pixart/refrence/bs1")
        assert (code, out) == (4, "")
        assert err.startswith(
            f"ERROR: --cell 'pixart/refrence/bs1': no such cell; did you mean '{REFERENCE}'? allowed: "
        )
        assert len(err.splitlines()) == 1


def test_control_codes(runs: Path, verb: Verb) -> None:
    """Given a stranger's run whose texts hold codes of a terminal, then the words are printed and no code is."""
    evil = "\x1b]0;owned\x07\x1b[2Jdone\x9b31m"
    rewrite(runs / "first", FIRST, status="crashed", message=f"oom {evil}", log=f"first\nsecond {evil}\n", images=())
    rewrite(runs / "first", SECOND, status="not-run", message=f"no {evil}")
    path = runs / "first" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"not_run": {"pixart/x/bs1": f"needs {evil}"}}))
    _, out, err = verb("judge", "first")
    assert "  |" in out
    assert "oom " in out
    assert "second " in out
    assert "done" in out
    assert not [c for c in out + err if not c.isprintable() and c != "\n"]
    for arguments in (("accept", "first", "--reason=x"), ("compare", "equal", "first")):
        _, out, err = verb(*arguments)
        assert not [c for c in out + err if not c.isprintable() and c != "\n"]


def test_a_newer_run(runs: Path, verb: Verb) -> None:
    """Given a run of a newer qregress, then one line says so."""
    path = runs / "first" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema": 99}))
    code, _, err = verb("judge", "first")
    assert code == 4
    assert err.startswith("ERROR: first: run.json: not what qregress wrote: written by a newer qregress: schema 99")

"""``qregress orphans``: baselines that nothing asks for, damage, and removing the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qregress.config import embedded_path
from qregress.store.baselines import Store
from tests.store_making import CLASS, files, folders, matrix_ids, write_matrix

Verb = Callable[..., tuple[int, str, str]]
REFERENCE, FIRST, SECOND = matrix_ids(2)


@pytest.fixture
def accepted(runs: Path, verb: Verb) -> Path:
    """The project with its first run accepted."""
    assert verb("accept", "first", "--reason=x")[0] == 0
    return runs


def test_clean(accepted: Path, verb: Verb) -> None:
    """Given baselines of all cells, then they are clean, and nothing is changed."""
    before = files(accepted)
    assert verb("orphans") == (0, f"3 baselines in {accepted / 'baselines'}: clean\n", "")
    assert files(accepted) == before


def test_no_baselines(runs: Path, verb: Verb) -> None:
    """Given no folder, then it is clean, and there is none after it."""
    assert verb("orphans", "--prune") == (0, f"0 baselines in {runs / 'baselines'}: clean\n", "")
    assert not (runs / "baselines").exists()


def test_orphans(accepted: Path, verb: Verb) -> None:
    """Given a setting that is gone, then its baseline is named; --prune removes it, its folders, and nothing else."""
    write_matrix(accepted, 1)
    before = files(accepted / "baselines")
    code, out, _ = verb("orphans")
    assert code == 1
    assert out.splitlines() == [
        f"baselines/{CLASS}/{SECOND}: no cell of qregress.toml asks for this baseline",
        "1 orphaned baselines; remove them with: qregress orphans --prune",
        f"3 baselines in {accepted / 'baselines'}: NOT clean",
    ]
    assert files(accepted / "baselines") == before
    code, out, _ = verb("orphans", "--prune")
    assert (code, out.splitlines()) == (
        0,
        [f"removed baselines/{CLASS}/{SECOND}", f"2 baselines in {accepted / 'baselines'}: clean"],
    )
    left = {name: data for name, data in before.items() if SECOND not in name}
    assert files(accepted / "baselines") == left
    assert not [name for name in folders(accepted / "baselines") if "s01" in name]


def test_prune_without_a_configuration(accepted: Path, verb: Verb) -> None:
    """Given no qregress.toml, when --prune would take every baseline for an orphan, then one line refuses it.

    With --config it works, as it does where the embedded configuration is named.
    """
    (accepted / "qregress.toml").rename(accepted / "other.toml")
    before = files(accepted)
    code, out, err = verb("orphans", "--prune")
    assert (code, out) == (4, "")
    says = "--prune: there is no qregress.toml here to say what is asked for; name one with --config"
    assert err == f"ERROR: {says}\n"
    assert verb("orphans")[0] == 1  # to list them harms nobody
    assert files(accepted) == before
    write_matrix(accepted, 1)
    (accepted / "qregress.toml").replace(accepted / "other.toml")
    assert verb("orphans", "--prune", "--config=other.toml")[0] == 0
    assert sorted(key.cell for key in Store(accepted / "baselines").places()) == sorted([REFERENCE, FIRST])
    assert verb("orphans", "--prune", f"--config={embedded_path()}")[0] == 0
    assert Store(accepted / "baselines").places() == []


def test_damage(accepted: Path, verb: Verb) -> None:
    """Given a damaged baseline, then it is named, with 1; pruning does not remove what is asked for."""
    path = accepted / "baselines" / CLASS / FIRST / "baseline.json"
    path.write_bytes(path.read_bytes() + b" ")
    for arguments in ((), ("--prune",)):
        code, out, _ = verb("orphans", *arguments)
        assert code == 1
        assert out.splitlines()[0].startswith(f"{path}: is not what was accepted")
        assert out.splitlines()[-1] == f"3 baselines in {accepted / 'baselines'}: NOT clean"


def test_a_damaged_orphan(accepted: Path, verb: Verb) -> None:
    """Given an orphan that is damaged, when it is pruned, then the store is clean."""
    write_matrix(accepted, 1)
    (accepted / "baselines" / CLASS / SECOND / "baseline.json").write_text("{")
    assert verb("orphans")[0] == 1
    code, out, _ = verb("orphans", "--prune")
    assert (code, out.splitlines()[-1]) == (0, f"2 baselines in {accepted / 'baselines'}: clean")
    assert len(Store(accepted / "baselines").places()) == 2


def test_no_store(runs: Path, verb: Verb) -> None:
    """Given a file for a store, then one line says so."""
    code, _, err = verb("orphans", "--baselines=qregress.toml")
    assert code == 4
    assert err.startswith("ERROR: qregress.toml: is a file, not a folder")
    assert files(runs / "first")

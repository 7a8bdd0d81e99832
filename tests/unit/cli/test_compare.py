"""``qregress compare``: two finished runs, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making import make_layer
from tests.store_making import (
    files,
    finished_record,
    make_asked,
    make_fingerprint,
    matrix_ids,
    pack,
    rewrite,
    write_run,
)

Verb = Callable[..., tuple[int, str, str]]
REFERENCE, FIRST, SECOND = matrix_ids(2)


def test_equal_runs(runs: Path, verb: Verb) -> None:
    """Given two equal runs, one of them packed, then nothing is worse, and nothing is written."""
    pack(runs / "equal", runs / "equal.zip", top="run/")
    before = files(runs)
    code, out, err = verb("compare", "first", "equal.zip")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "3 cells compared: 3 with the same images to the bit, 0 worse"
    assert files(runs) == before


@pytest.mark.usefixtures("runs")
def test_a_worse_run(verb: Verb) -> None:
    """Given a run that is worse, then it fails by name; the other way around nothing fails, and it says better."""
    code, out, _ = verb("compare", "first", "later")
    assert code == 1
    assert f"{FIRST}: regression.lpips" in out
    assert out.splitlines()[-1] == "3 cells compared: 0 with the same images to the bit, 3 worse"
    code, out, _ = verb("compare", "later", "first", "-k", "not reference")
    assert code == 0
    assert f"{FIRST}: better" in out
    assert out.splitlines()[-1] == "2 cells compared: 0 with the same images to the bit, 0 worse"


def test_cells_of_one_run_only(runs: Path, verb: Verb) -> None:
    """Given cells that one run has alone, then they are named; one that was lost fails, a further one does not."""
    write_run(runs / "less", [finished_record(REFERENCE), finished_record(FIRST), finished_record("pixart/new/bs1")])
    code, out, _ = verb("compare", "first", "less")
    assert code == 1
    assert f"{SECOND}: only in first" in out.splitlines()
    assert "pixart/new/bs1: only in less" in out.splitlines()
    same = "2 cells compared: 2 with the same images to the bit, 0 worse"
    assert out.splitlines()[-1] == f"{same}, 1 without a verdict any more"
    for chosen in (["-k", "not s01"], ["--cell", REFERENCE, "--cell", FIRST, "--cell=pixart/new/bs1"]):
        code, out, _ = verb("compare", "first", "less", *chosen)
        assert (code, out.splitlines()[-1]) == (0, same)


def test_a_cell_that_was_not_run(runs: Path, verb: Verb) -> None:
    """Given a cell that ran and was not run again, then it has no verdict any more, and that fails."""
    rewrite(runs / "equal", FIRST, status="not-run", message="no compiler")
    code, out, _ = verb("compare", "first", "equal")
    assert code == 1
    assert f"{FIRST}: ran -> not-run" in out.splitlines()
    assert out.splitlines()[-1].endswith("0 worse, 1 without a verdict any more")
    rewrite(runs / "first", FIRST, status="not-run", message="no compiler")
    code, out, _ = verb("compare", "first", "equal")
    assert code == 0
    assert "without a verdict" not in out


def test_what_fails_in_both(runs: Path, verb: Verb) -> None:
    """Given a kernel that was wrong before, then that is told and not worse; what fails in the second run alone is."""
    broken = {"transformer": (make_layer(excess=3.0, error=0.1, where="everywhere", kind="not shaped"),)}
    rewrite(runs / "equal", FIRST, fidelity=broken)
    code, out, _ = verb("compare", "first", "equal")
    assert (code, out.splitlines()[-1][-7:]) == (1, "1 worse")
    rewrite(runs / "first", FIRST, fidelity=broken)
    code, out, _ = verb("compare", "first", "equal")
    assert (code, out.splitlines()[-1][-7:]) == (0, "0 worse")
    assert f"{FIRST}: fails alike in both: kernel.fidelity" in out.splitlines()
    worse = {"transformer": (make_layer(excess=4.0, error=0.2, where="everywhere", kind="not shaped"),)}
    rewrite(runs / "equal", FIRST, fidelity=worse)
    code, out, _ = verb("compare", "first", "equal")
    assert (code, out.splitlines()[-1][-7:]) == (1, "1 worse")


def test_crashes(runs: Path, verb: Verb) -> None:
    """Given a cell that crashes in the second run, then it is worse; one that crashed in the first alone is not."""
    rewrite(runs / "equal", FIRST, status="crashed", message="out of memory")
    code, out, _ = verb("compare", "first", "equal")
    assert code == 1
    assert f"{FIRST}: ran -> crashed" in out.splitlines()
    code, out, _ = verb("compare", "equal", "first")
    assert code == 0
    assert f"{FIRST}: crashed -> ran" in out.splitlines()
    code, out, _ = verb("compare", "equal", "equal")
    assert code == 0
    assert f"{FIRST}: crashed -> crashed" in out.splitlines()


def test_what_cannot_be_compared(runs: Path, verb: Verb) -> None:
    """Given cells of which something else was asked for, or on another kind of device, then that is said."""
    rewrite(runs / "later", FIRST, asked=make_asked("s00", call={"clean": True}))
    rewrite(runs / "later", SECOND, fingerprint=make_fingerprint(device_class="cuda-h100"))
    code, out, _ = verb("compare", "first", "later", "-k", "not reference")
    assert code == 0
    assert f"{FIRST}: call's clean was the default and is true" in out.splitlines()
    assert f"{SECOND}: ran on cpu-x86_64-avx512, then on cuda-h100" in out.splitlines()


def test_an_older_run(runs: Path, verb: Verb) -> None:
    """Given a run that does not say what was asked for, then one line says that it is an older one."""
    rewrite(runs / "first", FIRST, asked=None)
    code, _, err = verb("compare", "first", "later")
    assert code == 4
    assert (
        err == f"ERROR: {FIRST}: its record does not say what was asked for: made by an older qregress; run it again\n"
    )


def test_images_that_are_missing_or_fewer(runs: Path, verb: Verb) -> None:
    """Given references that differ, when an image is missing, then one line says so; with fewer it is void."""
    rewrite(runs / "later", REFERENCE, images=("images/00.png",))
    code, out, _ = verb("compare", "first", "later", "-k", "reference")
    assert code == 1  # its memory is worse
    assert f"{REFERENCE}: void: drift.reference: its latents and images are others, and only digests" in out
    rewrite(runs / "later", REFERENCE, images=("images/00.png", "images/07.png"))
    code, _, err = verb("compare", "first", "later")
    assert (code, err) == (
        4,
        f"ERROR: later: cells/{REFERENCE}/images/07.png is missing; take the run's whole folder\n",
    )

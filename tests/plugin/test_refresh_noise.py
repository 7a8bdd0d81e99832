"""``--qregress-refresh``: of which cells the noise floor is measured, and what becomes of one that cannot be."""

from __future__ import annotations

import json

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import WAYS, Project
from tests.plugin.refreshing import ALL, EVERY, FAILING, MISSING, OK, REASON, WORSE, accepted, verdicts


@WAYS
def test_noise_of_new_cells(way: str, kept: Project) -> None:
    """Given no baselines, then the noise floor of each cell is measured once, with a refresh or without."""
    kept.run_as(way)
    assert sorted(kept.produced("noise")) == sorted(ALL)
    assert accepted(kept) == {}


@pytest.mark.parametrize(
    ("options", "measured"),
    [((), []), ((MISSING,), []), ((FAILING, REASON), [INT8]), ((EVERY, REASON), [REFERENCE, INT8, INT8_TE])],
)
def test_noise_of_known_cells(options: tuple[str, ...], measured: list[str], known: Project) -> None:
    """Given baselines, then noise is measured of the cells that are to replace theirs, and of no other."""
    known.behave(WORSE)
    known.run(*options)
    assert known.produced("noise") == measured


@pytest.mark.parametrize(("way", "options"), [("", ()), ("", (MISSING,)), ("-n0", (MISSING,)), ("-n2", (MISSING,))])
def test_crash_while_noise_is_measured(way: str, options: tuple[str, ...], kept: Project) -> None:
    """Given a worker that dies of a variant, then nothing that was measured is lost, and the summary says so."""
    kept.behave({INT8: {"noise": "crash"}})
    result = kept.run_as(way, *options)
    assert result.ret == OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"{INT8}: its noise floor could not be measured: *SIGSEGV*"])
    record = json.loads((kept.path / ".qregress/latest/cells" / INT8 / "record.json").read_bytes())
    assert (record["status"], record["noise"]) == ("ran", None)
    assert kept.baselines() == (sorted(ALL) if options else [])
    assert len(kept.produced()) == 3


def test_interrupt_while_noise_is_measured(kept: Project) -> None:
    """Given Ctrl-C in a variant, then the run ends as interrupted, without that cell."""
    kept.behave({INT8: {"noise": "interrupt"}})
    assert kept.run_apart(MISSING).ret == pytest.ExitCode.INTERRUPTED
    assert list(verdicts(kept)) == [REFERENCE]
    assert not (kept.path / "baselines").exists()


def test_a_noise_floor_outlives_a_refresh_that_could_not_measure_it(known: Project) -> None:
    """Given a baseline with noise, when its successor's cannot be measured, then the old one is kept, and from when."""
    known.behave({INT8: {"lpips": 0.02, "noise": "crash"}})
    known.run(FAILING, REASON).assert_outcomes(passed=3)
    files = known.stored()
    baseline = json.loads(next(data for name, data in files.items() if name.endswith(f"{INT8}/baseline.json")))
    accepted = json.loads(next(data for name, data in files.items() if name.endswith(f"{INT8}/accepted.json")))
    assert baseline["noise"] is not None
    assert accepted["noise_from"] is not None

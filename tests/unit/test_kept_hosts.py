"""The study as three hosts of one kind of GPU ran it: what may not differ, and what differs and may not fail."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from pathlib import Path

import pytest
from msgspec.structs import replace

from qregress import cli
from qregress.judge.history import History
from qregress.judge.noise import FLOORS
from qregress.judge.timing_regression import latency
from qregress.judge.verdict import judge
from qregress.record import Check, Record, Timing
from qregress.stats import low_quantile
from qregress.store.accept import as_accepted
from qregress.store.finished import FinishedRun

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "runs" / "published-h200.zip"
QUIET, SLOW = (STUDY.with_stem(f"{STUDY.stem}-{which}-host") for which in ("quiet", "slow"))


def in_both(before: Path, after: Path) -> list[tuple[Record, Record]]:
    """What both runs have of a cell."""
    with FinishedRun(before) as one, FinishedRun(after) as two:
        cells = {found.id for found in one.run.cells} & {found.id for found in two.run.cells}
        both = [(one.record(cell), two.record(cell)) for cell in sorted(cells)]
    found = [(was, now) for was, now in both if was is not None and now is not None]
    assert len(found) == len(cells)
    return found


def held(was: Record, now: Record) -> Check | None:
    """Wall time against that of a run that was accepted."""
    return latency(now, History(as_accepted(was, judge(was, None, {}))))


def launched_alike(record: Record) -> Record:
    """As if its host had been as fast as any."""
    assert record.timing is not None
    return replace(record, timing=replace(record.timing, launch_s=(8e-6,) * 6))


def by_clock(record: Record) -> float:
    """The ratio of its wall times to the reference's."""
    assert record.timing is not None
    return low_quantile(record.timing.samples_s) / low_quantile(record.timing.reference_s)


def by_waiting(record: Record) -> float:
    """The part of that which is what devices wait."""
    assert record.timing is not None
    assert record.timing.host_bound is not None
    assert record.timing.reference_host_bound is not None
    return (1 - record.timing.reference_host_bound) / (1 - record.timing.host_bound)


@pytest.mark.parametrize(("other", "cells"), [(QUIET, 14), (SLOW, 20)])
def test_memory_is_the_same_in_two_runs(other: Path, cells: int) -> None:
    """Given another host, then each cell took the same bytes, made the same images and kept the device busy as long."""
    pairs = in_both(STUDY, other)
    assert len(pairs) == cells
    for mine, theirs in pairs:
        assert mine.memory is not None
        assert theirs.memory is not None
        # Not what the allocator has reserved besides, which depends on what was run before.
        assert replace(mine.memory, reserved_bytes=None) == replace(theirs.memory, reserved_bytes=None), mine.id
        assert (mine.latents_sha256, mine.images_sha256) == (theirs.latents_sha256, theirs.images_sha256), mine.id
        assert mine.timing is not None
        assert theirs.timing is not None
        assert mine.timing.busy_s
        assert theirs.timing.busy_s
        assert abs(min(mine.timing.busy_s) / min(theirs.timing.busy_s) - 1) < 0.02, mine.id


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        (STUDY, QUIET, (4, 6)),
        (STUDY, SLOW, (5, 5)),
        (QUIET, STUDY, (2, 2)),
        (QUIET, SLOW, (0, 0)),
        (SLOW, STUDY, (5, 5)),
        (SLOW, QUIET, (4, 4)),
    ],
)
def test_another_host_is_no_regression(
    before: Path, after: Path, passed: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Given one host's run held against another's, then nothing is worse, and no time better.

    Ratios of wall times are 0.69 to 1.44 times the other's, where calls wait for the host. All of batch 4 pass, and so
    many of batch 1: with launch overhead, which is known of one run alone, and as if that had been the same in all,
    so that nothing but the references tells of the host.
    """
    cli.main(["compare", str(before), str(after)])
    told = capsys.readouterr().out
    assert " 0 worse" in told.splitlines()[-1], told
    pairs = in_both(before, after)
    alike = [(launched_alike(was), launched_alike(now)) for was, now in pairs]
    for records, expected in zip((pairs, alike), passed, strict=True):
        verdicts: defaultdict[str, list[str]] = defaultdict(list)
        for was, now in records:
            check = held(was, now)
            if check is not None:
                assert not check.better
                verdicts[now.id.rpartition("/")[2].partition("-")[0]].append(check.verdict)
        assert verdicts["bs4"] == ["pass"] * 4
        assert sorted(verdicts["bs1"]) == ["pass"] * expected + ["void"] * (len(verdicts["bs1"]) - expected)


def test_findings_say_what_hosts_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no excuse for what a host did, then three times are worse and two better, as findings have it.

    And what devices waited accounts for how far ratios are apart, within 4 %.
    """
    monkeypatch.setattr("qregress.judge.timing_regression.excuse", lambda *_: None)
    failing = better = 0
    ratios, left = [], []
    for before, after in permutations((STUDY, QUIET, SLOW), 2):
        for was, now in in_both(before, after):
            check = held(was, now)
            if check is None:
                continue
            failing, better = failing + (check.verdict == "fail"), better + check.better
            if now.id.startswith("pixart-sigma/") and now.id.endswith("/bs1"):
                ratios.append(by_clock(now) / by_clock(was))
                left.append(ratios[-1] / (by_waiting(now) / by_waiting(was)))
    assert (failing, better) == (3, 2)
    page = " ".join((ROOT / "docs" / "findings.md").read_text(encoding="utf-8").split())
    assert f"have ratios of wall times {min(ratios):.2f} to {max(ratios):.2f} times another run's" in page
    assert "three verdicts were false alarms and two said" in page
    most = max(max(left) - 1, 1 - min(left))
    assert f"without that factor the ratios agree within {100 * most:.0f} %" in page


def test_a_slow_host_shows_in_launches() -> None:
    """Given the kept run, then kernels were launched slower beside each cell whose reference took 5 % longer.

    Than the quickest of its kind, both by their lower quartiles; and beside four cells more.
    """
    timings: defaultdict[str, list[Timing]] = defaultdict(list)
    with FinishedRun(STUDY) as run:
        for found in run.run.cells:
            record = run.record(found.id)
            assert record is not None
            assert record.timing is not None
            if record.timing.reference_s:
                timings[found.id.replace(found.setting, "")].append(record.timing)
    slower: dict[bool, list[bool]] = {True: [], False: []}
    for beside in timings.values():
        quickest = min(low_quantile(each.reference_s) for each in beside)
        launches = [low_quantile(each.launch_s or ()) for each in beside]
        for each, launch in zip(beside, launches, strict=True):
            waits = low_quantile(each.reference_s) > 1.05 * quickest
            slower[waits].append(launch / min(launches) > 1 + FLOORS["latency"].relative)
    assert slower[True] == [True] * 5
    assert (slower[False].count(True), len(slower[False])) == (4, 17)

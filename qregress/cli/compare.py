"""``qregress compare``: two finished runs, cell by cell, the second held against the first. Needs no device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qregress.cli import common
from qregress.errors import ConfigError
from qregress.judge.history import History
from qregress.judge.verdict import judge
from qregress.matrix import reference_of
from qregress.record import CellResult, Record
from qregress.report import baselines, terminal
from qregress.store.accept import Change, as_accepted, kind_of
from qregress.store.baselines import differences
from qregress.store.finished import FinishedRun
from qregress.store.history import distance


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "compare",
        help="hold one finished run against another, cell by cell",
        description="Hold RUN_B against RUN_A as if RUN_A had been accepted: before and after an upgrade, for example.",
    )
    parser.add_argument("before", metavar="RUN_A", help="folder of a run, or artifact.zip")
    parser.add_argument("after", metavar="RUN_B", help="folder of a run, or artifact.zip")
    common.add_choice(parser)
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Returns 1 where a cell of the second run is worse than noise explains, or has no verdict any more; 0 else."""
    with FinishedRun(Path(options.before)) as before, FinishedRun(Path(options.after)) as after:
        ids = [result.id for result in before.run.cells]
        mine = [result.id for result in after.run.cells]
        cells = common.chosen([*ids, *(cell for cell in mine if cell not in ids)], options)
        changes: list[Change] = []
        results: list[CellResult] = []
        failed: list[CellResult] = []
        told: list[str] = []
        lost = 0
        for cell in cells:
            one, two = before.record(cell), after.record(cell)
            if one is None or two is None:
                told.append(f"{cell}: only in {options.before if two is None else options.after}")
                lost += two is None
                continue
            if one.status != "ran" or two.status != "ran":
                told.append(f"{cell}: {one.status} -> {two.status}")
                lost += one.status == "ran" and two.status == "not-run"
                if two.status == "crashed" != one.status:
                    failed.append(judge(two, None, {}))
                continue
            change, result = _compared(before, one, after, two)
            changes.append(change)
            results.append(result)
            failing = _failing(result)
            if failing - _failing(judge(one, before.record(reference_of(one.id)), {})):
                failed.append(result)
            elif failing:
                told.append(f"{cell}: fails alike in both: {', '.join(sorted(name for name, _ in failing))}")
    for result in failed:
        print(f"{result.id}: {terminal.failure(result, Path(options.after))}\n")
    print(baselines.changes(changes, **common.look()), end="")
    for line in (*told, *terminal.remarks(results)):
        print(line)
    same = sum(
        change.before is not None
        and change.before.baseline.images_sha256 == change.after.baseline.images_sha256
        and change.before.baseline.images_sha256 is not None
        for change in changes
    )
    gone = f", {lost} without a verdict any more" if lost else ""
    print(f"{len(changes)} cells compared: {same} with the same images to the bit, {len(failed)} worse{gone}")
    if lost or failed:
        return 1
    return 0 if results else terminal.NOTHING


def _failing(result: CellResult) -> set[tuple[str, str]]:
    """Its checks that fail, and why, with all figures."""
    return {(check.name, check.why) for check in result.checks if check.verdict == "fail"}


def _compared(before: FinishedRun, one: Record, after: FinishedRun, two: Record) -> tuple[Change, CellResult]:
    """The second record judged as if the first had been accepted."""
    try:
        was = as_accepted(one, judge(one, None, {}))
        now = as_accepted(two, judge(two, None, {}))
    except ValueError as error:
        raise ConfigError(f"{two.id}: {error}") from None
    words = differences(was.baseline.asked, now.baseline.asked)
    if was.baseline.device_class != now.baseline.device_class:
        words.append(f"ran on {was.baseline.device_class}, then on {now.baseline.device_class}")

    def moved() -> tuple[float, ...] | None:
        if len(one.images) != len(two.images):
            return None
        pairs = zip(one.images, two.images, strict=True)
        return tuple(distance(before.image(one.id, a), after.image(two.id, b)) for a, b in pairs)

    past = History(None, f"not comparable: {'; '.join(words)}") if words else History(was, moved=moved)
    result = judge(two, after.record(reference_of(two.id)), {}, history=past)
    kind = kind_of(result, comparable=not words, known=True)
    return Change(id=two.id, kind=kind, before=was, after=now, words="; ".join(words)), result

"""``qregress judge``: a finished run under today's limits, waivers and baselines. Needs no device."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from qregress.cli import common
from qregress.config import EVERYTHING, Config
from qregress.errors import ConfigError
from qregress.judge.verdict import judge
from qregress.matrix import REFERENCE, reference_of
from qregress.record import CellResult, encode
from qregress.report import terminal
from qregress.store.atomic import write_atomic
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from qregress.store.history import history


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "judge",
        help="judge a finished run again, under today's configuration",
        description="Judge a finished run again, under today's configuration and baselines; nothing is produced.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or artifact.zip")
    common.add_choice(parser)
    parser.add_argument("--json", metavar="FILE", help="write the new run.json there; the run stays as it is")
    parser.add_argument("--require", action="store_true", help="a cell that is not run or not judged is a failure")
    common.add_config(parser)
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Returns pytest's exit codes: 1 where a check fails, 5 where there is nothing to judge."""
    config, store = common.load(options)
    known = {cell.id for cell in config.cells()}
    with FinishedRun(Path(options.run)) as run:
        narrowed = options.k or options.cell
        cells = common.chosen((result.id for result in run.run.cells), options)
        foreign = [cell for cell in cells if cell not in known]
        results = [_judged(run, cell, config, store) for cell in cells if cell in known]
        lost = set() if narrowed else _selected(config, run.run.selection) - {*cells, *run.run.not_run}
        missing = dict.fromkeys(sorted(lost), "the run has no verdict of it")
        judged = msgspec.structs.replace(run.run, cells=tuple(results), not_run=run.run.not_run | missing)
    if options.json:
        try:
            write_atomic(Path(options.json), encode(judged))
        except OSError as error:
            raise ConfigError(f"{options.json}: cannot be written: {error.strerror}") from None
    for result in results:
        if result.verdict in {"fail", "crashed"}:
            print(f"{result.id}: {terminal.failure(result, Path(options.run))}\n")
    print(terminal.summary(results, judged.not_run, None, **common.look()), end="")
    if not judged.complete:
        print("the run is incomplete: it was interrupted, or is still under way")
    for cell in foreign:
        print(f"{cell}: not judged: no cell of {config.path.name} has this id")
    if foreign and options.require:
        return 1
    return terminal.exit_code(results, judged.not_run, require=options.require)


def _selected(config: Config, selection: str) -> set[str]:
    """What the run was to have of today's cells; all, where no selection has that name any more."""
    known = selection == EVERYTHING or selection in config.selections
    return set(config.selection(selection if known else EVERYTHING)[1])


def _judged(run: FinishedRun, cell: str, config: Config, store: Store) -> CellResult:
    record = run.record(cell)
    if record is None:
        raise ConfigError(f"{run.path}: run.json names {cell}, but there is no record of it; take the whole folder")
    reference = run.record(reference_of(cell)) if record.setting != REFERENCE else None
    past = history(store, record, partial(run.image, cell)) if config.baselines.used else None
    return judge(record, reference, config.budgets.of(cell), history=past, waived=config.waivers)

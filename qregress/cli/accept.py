"""``qregress accept``: a finished run's cells become baselines. Needs no device."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qregress.cli import common
from qregress.errors import ConfigError
from qregress.report import baselines
from qregress.store.accept import KINDS, Kind, Reason, accept
from qregress.store.author import author
from qregress.store.finished import FinishedRun

#: What ``--only`` means.
_KINDS: dict[str | None, tuple[Kind, ...]] = {None: KINDS, "new": ("new",), "failing": ("failing", "changed")}


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "accept",
        help="make a finished run's cells baselines",
        description="Make cells of a finished run baselines: its folder, or a zip archive of it as CI keeps them.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or artifact.zip")
    common.add_choice(parser)
    parser.add_argument("--only", choices=("new", "failing"), help="without a baseline, or failing against it")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; kept with the baselines")
    parser.add_argument("--dry-run", action="store_true", help="show before and after, write nothing")
    common.add_config(parser)
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Returns 1 where a cell was refused, 0 else."""
    if not options.reason.strip():
        raise ConfigError("--reason: empty; say why these become baselines")
    config, store = common.load(options)
    if not config.baselines.used:
        raise ConfigError(f'{config.path}: [baselines] store = "none": this configuration has no baselines')
    known = {cell.id for cell in config.cells()}
    with FinishedRun(Path(options.run)) as run:
        cells = common.chosen((result.id for result in run.run.cells), options)
        foreign = [cell for cell in cells if cell not in known]
        found = accept(
            store,
            run,
            [cell for cell in cells if cell in known],
            Reason(by=author(Path.cwd()), why=options.reason.strip()),
            kinds=_KINDS[options.only],
            waived=config.waivers,
            images=config.baselines.images,
            dry=options.dry_run,
        )
        complete = run.run.complete
    if not complete:
        print("the run is incomplete: it was interrupted, or is still under way", file=sys.stderr)
    for cell in foreign:
        print(f"{cell}: NOT accepted: no cell of {config.path.name} has this id", file=sys.stderr)
    text = baselines.accepted(store, found, **common.look())
    print(f"dry run: {text}" if options.dry_run and not found.changes else text, end="")
    if options.dry_run:
        print("dry run: nothing was written")
    return 1 if found.refused or foreign else 0

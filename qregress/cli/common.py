"""What the verbs that read finished runs share: configuration, store, and a choice of cells."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from shutil import get_terminal_size
from typing import TypedDict

from qregress import config as configuration
from qregress.config import Config
from qregress.errors import ConfigError, nearest
from qregress.pipelines import factories
from qregress.store.baselines import Store


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--baselines``."""
    parser.add_argument("--config", metavar="PATH", help="another configuration")
    parser.add_argument("--baselines", metavar="DIR", help="accepted baselines (default: baselines)")


def add_choice(parser: argparse.ArgumentParser) -> None:
    """``-k`` and ``--cell``."""
    parser.add_argument("-k", metavar="EXPRESSION", help="only cells whose id matches, as in pytest")
    parser.add_argument("--cell", metavar="ID", action="append", help="only this cell; may be given several times")


def load(options: argparse.Namespace) -> tuple[Config, Store]:
    """Today's configuration and its baselines. Raises ``ConfigError``, and ``StoreError`` for what is no store."""
    path = Path(options.config) if options.config else configuration.find(Path.cwd())
    config = configuration.load(path, factories.of_folder(Path.cwd()))
    store = Store(configuration.baselines_folder(config, options.baselines, Path.cwd()))
    if config.baselines.used:
        store.check()
    return config, store


def chosen(cells: Iterable[str], options: argparse.Namespace) -> list[str]:
    """The ids that are named, and that an expression matches as pytest matches names. Raises ``ConfigError``."""
    found = list(cells)
    for name in options.cell or ():
        if name not in found:
            raise ConfigError(f"--cell {name!r}: no such cell; {nearest(name, found)}")
    found = [cell for cell in found if not options.cell or cell in options.cell]
    expression = options.k
    if expression is None:
        return found
    # Private, and the one implementation of what -k means; every pytest since 5.4 has it.
    from _pytest.mark.expression import Expression

    try:
        compiled = Expression.compile(expression)
    except Exception as error:  # noqa: BLE001 - of another type in every second pytest
        raise ConfigError(f"-k {expression!r}: {error}") from None
    kept = [cell for cell in found if compiled.evaluate(_Matcher(cell))]
    if not kept:
        raise ConfigError(f"-k {expression!r} matches none of {len(found)} cells: {', '.join(found[:3])}, …")
    return kept


class Look(TypedDict):
    """Columns, and whether colours show."""

    width: int
    color: bool


class _Matcher:
    """Whether a word of an expression is part of an id, whatever its case."""

    def __init__(self, cell: str) -> None:
        self._cell = cell.lower()

    def __call__(self, name: str, /, **_: object) -> bool:
        return name.lower() in self._cell


def look() -> Look:
    """What is printed suits the terminal."""
    return {"width": get_terminal_size().columns, "color": sys.stdout.isatty()}

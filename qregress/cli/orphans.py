"""``qregress orphans``: baselines that nothing asks for, and a check of all of them."""

from __future__ import annotations

import argparse
from typing import Any

from qregress import config as configuration
from qregress.cli import common
from qregress.errors import ConfigError
from qregress.report import baselines


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "orphans",
        help="list baselines that no cell asks for, and damaged ones",
        description="List baselines that no cell of the configuration asks for; hold every file against its digest.",
    )
    parser.add_argument("--prune", action="store_true", help="remove the orphans")
    common.add_config(parser)
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Returns 1 where there are orphans that stay, or damage; 0 for a store that is clean."""
    config, store = common.load(options)
    if options.prune and options.config is None and config.path == configuration.embedded_path():
        raise ConfigError("--prune: there is no qregress.toml here to say what is asked for; name one with --config")
    known = {cell.id for cell in config.cells()}
    # What is removed need not be whole.
    damage = {key: text for key, text in store.damage().items() if key.cell in known or not options.prune}
    for text in damage.values():
        print(text)
    keys = store.places()
    found = [key for key in keys if key.cell not in known]
    if found and options.prune:
        store.write(lambda present: ({}, [key for key in present if key.cell not in known]))
        print("\n".join(f"removed {store.root.name}/{key.path}" for key in found))
    elif found:
        print(baselines.orphans(found, store, config.path), end="")
    stay = [] if options.prune else found
    clean = not damage and not stay
    print(f"{len(keys) - len(found) + len(stay)} baselines in {store.root}: {'clean' if clean else 'NOT clean'}")
    return 0 if clean else 1

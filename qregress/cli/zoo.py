"""``qregress zoo``: the pocket pipelines, listed or copied out as ordinary Diffusers folders. Needs no torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qregress.cli import common
from qregress.pipelines import pocket
from qregress.pipelines.export import export, snippet
from qregress.report.zoo import table


def add(verbs: Any) -> None:
    """Describe the verb and its two actions."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "zoo",
        help="list the pocket pipelines, or copy one out",
        description="List the small trained pipelines inside the package, or copy one out as a Diffusers folder.",
    )
    actions: Any = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    lister: argparse.ArgumentParser = actions.add_parser(
        "list",
        help="pipelines and components, with their sizes",
        description="List the pocket pipelines and their components, with the number of parameters and bytes of files.",
    )
    lister.set_defaults(act=show)
    copier: argparse.ArgumentParser = actions.add_parser(
        "export",
        help="copy a pocket pipeline out as a Diffusers folder",
        description="Copy a pocket pipeline to a new folder that `DiffusionPipeline.from_pretrained` loads, shared "
        "components included, and say how to call it. Nothing is ever overwritten.",
    )
    copier.add_argument("name", metavar="NAME", help="as `qregress zoo list` names it")
    copier.add_argument("folder", metavar="DIR", help="a folder that is not there yet, or is empty")
    copier.set_defaults(act=act)


def show(_options: argparse.Namespace) -> int:
    """Print the table."""
    found = {name: pocket.find(name) for name in pocket.names()}
    print(table(found, **common.look()), end="")
    return 0


def act(options: argparse.Namespace) -> int:
    """Copy, and say how to call it."""
    folder = pocket.find(options.name)
    count = export(folder, Path(options.folder))
    print(f"wrote: {options.folder} ({count} files)")
    print(f"next, for example:\n\n{snippet(folder, options.folder)}", end="")
    return 0

"""``qregress doctor``: what this machine can run, and what is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "doctor",
        help="say what this machine can run, and what is missing",
        description="Say what this machine can run of ./qregress.toml (or of the embedded matrix where there is none), "
        "what is missing, what that costs and how to get it. Nothing is downloaded or compiled. Exit code 0: all that "
        "the configuration needs here is there; 1: something is missing; 4: the configuration cannot be read.",
    )
    parser.add_argument(
        "pipeline",
        nargs="?",
        metavar="PIPELINE",
        help="only say which component of this pipeline does what: a name of the configuration, or a source",
    )
    parser.add_argument("--config", metavar="PATH", help="another configuration")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for bug reports")
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Look, and show it."""
    import msgspec
    from rich.console import Console

    from qregress import config, doctor
    from qregress.report.doctor import show

    path = Path(options.config) if options.config else config.find(Path.cwd())
    with Console(stderr=True).status("looking at libraries, devices and caches"):
        diagnosis = doctor.examine(path) if options.pipeline is None else doctor.describe(options.pipeline, path)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(diagnosis)).decode())
    else:
        show(diagnosis, sys.stdout)
    return diagnosis.code

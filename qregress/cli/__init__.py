"""``qregress``: one file per verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qregress._version import __version__
from qregress.cli import run
from qregress.errors import QregressError

_USAGE_ERROR = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns pytest's exit codes (0 green, 1 failed, 2 interrupted, 4 usage)."""
    parser = argparse.ArgumentParser(prog="qregress", description="Regression gate for quantized diffusion pipelines.")
    parser.add_argument("--version", action="version", version=f"qregress {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run.add(verbs)
    try:
        options = parser.parse_args(arguments)
        return int(options.act(options))
    except QregressError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except SystemExit as stop:
        # argparse ends with 2, which here means interrupted.
        return _USAGE_ERROR if stop.code == 2 else int(stop.code or 0)  # noqa: PLR2004


if __name__ == "__main__":
    sys.exit(main())

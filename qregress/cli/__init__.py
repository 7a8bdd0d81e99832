"""``qregress``: one file per verb."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from qregress._version import __version__
from qregress.cli import accept, compare, doctor, init, judge, orphans, run, zoo
from qregress.errors import ConfigError, QregressError

_INTERRUPTED = 2
_USAGE_ERROR = 4
_UNKNOWN = "unrecognized arguments: "


class _Parser(argparse.ArgumentParser):
    """Ends like everything else here: one line, exit code 4."""

    def error(self, message: str) -> NoReturn:
        """Raise what ``main`` prints; an option that is not known is told with the nearest one."""
        hint = ""
        if message.startswith(_UNKNOWN):
            unknown = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            known = list(self.names())
            hint = "".join(f"did you mean '{name}'? " for name in difflib.get_close_matches(unknown, known, n=1))
        raise ConfigError(f"{message}; {hint}see {self.prog} --help")

    def names(self) -> Iterator[str]:
        """All options, those of the verbs too: argparse says here what a verb did not know."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action.choices, dict):
                for verb in action.choices.values():
                    yield from verb.names()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns pytest's exit codes (0 green, 1 failed, 2 interrupted, 4 usage)."""
    parser = _Parser(prog="qregress", description="Regression gate for quantized diffusion pipelines.")
    parser.add_argument("--version", action="version", version=f"qregress {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in (run, accept, compare, judge, orphans, init, doctor, zoo):
        verb.add(verbs)
    try:
        options = parser.parse_args(arguments)
        return int(options.act(options))
    except QregressError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # What reads the output has seen enough (``| head``); Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as stop:
        return int(stop.code or 0)  # --help and --version

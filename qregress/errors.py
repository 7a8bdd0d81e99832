"""What qregress raises. Every message is one line: what, where, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class QregressError(Exception):
    """Base of all errors that qregress raises on purpose."""

    def __str__(self) -> str:
        """One line, whatever names from a file hold."""
        return "\\n".join(super().__str__().splitlines())


class ConfigError(QregressError):
    """The configuration, or what it names, is wrong. Exit code 4."""


class SourceError(QregressError):
    """A pipeline's files are missing, truncated or of another kind than its index says. Exit code 4."""


class DamagedError(SourceError):
    """A file of a pipeline is not as it was written. ``file``, ``what`` is wrong with it."""

    def __init__(self, file: Path, what: str) -> None:
        super().__init__(f"{file}: {what}; copy it again")
        self.file = file
        self.what = what

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str]]:
        """As it was made: an error is made again of its text otherwise."""
        return DamagedError, (self.file, self.what)


class SchemaError(QregressError):
    """A file of another schema version than this one can read."""


class StoreError(QregressError):
    """The baselines' folder cannot be read or written, or is not what was accepted. Exit code 4."""


class ProduceError(QregressError):
    """A cell could not be produced; ends that cell, not the run."""


class FactoryError(ProduceError):
    """A registered factory failed, or returned what cannot be a reference. Its cause, if any, is the user's own."""


class Unavailable(ProduceError):
    """What is asked of a cell that ran cannot be told, or not any more. The cell and whoever ran it stand."""


class Refused(QregressError):
    """A cell is not produced, as it could not count: its folder is another run's, or it was tried before."""


#: What libraries raise where they cannot do what they are asked.
LIBRARY_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)


def one_line(error: BaseException, limit: int | None = 300) -> str:
    """The text of an error on one line, so many characters of it at most."""
    return " ".join(str(error).split())[:limit]


def typed_line(error: BaseException, limit: int | None = 300) -> str:
    """The same after the name of its class."""
    return f"{type(error).__name__}: {one_line(error, limit)}"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Say what is allowed, and the nearest name where one is near: the tail of an error message."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}allowed: {', '.join(names) if names else 'nothing'}"

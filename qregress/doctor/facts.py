"""What a probe returns."""

from __future__ import annotations

from typing import Literal

import msgspec

from qregress.errors import one_line

#: ``later``: not there yet, and comes by itself with the first run that needs it. ``absent``: not there, and this
#: configuration does not need it. ``missing``: it does.
State = Literal["ok", "later", "absent", "missing"]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is there or not.

    ``cost``: what its absence costs, or its first use. ``how``: what to do, a command where there is one. ``named``:
    the configuration asks for it. ``cause``: the fact that explains why this one is missing; one problem counts once.
    """

    name: str
    state: State
    detail: str = ""
    cost: str = ""
    how: str = ""
    named: bool = False
    cause: str = ""


class Section(msgspec.Struct, frozen=True):
    """Facts that belong together."""

    title: str
    facts: tuple[Fact, ...]


class Cells(msgspec.Struct, frozen=True):
    """How many cells the configuration has, how many can run here, and why others cannot: reason -> how many."""

    total: int = 0
    here: int = 0
    not_here: dict[str, int] = {}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All facts and what follows from them. ``problems``: names of what is missing and explained by nothing else.

    ``code``: 0 where all cells for this machine can run, 1 where something is missing, 4 without a configuration.
    """

    schema: int = 1
    qregress: str
    sections: tuple[Section, ...]
    cells: Cells
    problems: tuple[str, ...]
    verdict: str
    code: int


def absence(*, named: bool) -> State:
    """The state of what is not there and will not come by itself."""
    return "missing" if named else "absent"


def told(error: Exception) -> tuple[str, str]:
    """What happened and what to do: messages here end with the latter, after a semicolon."""
    text = one_line(error, None)
    detail, semicolon, how = text.rpartition("; ")
    return (detail, how) if semicolon else (text, "")

"""A diagnosis as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from qregress.doctor import Diagnosis, Fact

_STYLES = {"ok": "green", "later": "yellow", "absent": "dim", "missing": "bold red"}
_STATE = max(map(len, _STYLES))


def show(diagnosis: Diagnosis, stream: TextIO) -> None:
    """Write it: a line per fact, what to do under each that is not there, the verdict last."""
    console = Console(file=stream, highlight=False, soft_wrap=True)
    for section in diagnosis.sections:
        console.print(Text(section.title, style="bold"))
        width = max(len(fact.name) for fact in section.facts)
        for fact in section.facts:
            for line in _lines(fact, width):
                console.print(line)
        console.print()
    console.print(Text(diagnosis.verdict, style="bold green" if not diagnosis.code else "bold red"))


def _lines(fact: Fact, width: int) -> list[Text]:
    line = Text(f"  {fact.state:<{_STATE}}", style=_STYLES[fact.state])
    first = Text.assemble(line, Text(f"  {fact.name:<{width}}  {fact.detail}".rstrip()))
    indent = " " * (_STATE + width + 6)
    shown = {"cost": fact.cost, "do": fact.how} if fact.state != "ok" else {}
    return [first, *(Text(f"{indent}{label}: {text}") for label, text in shown.items() if text)]

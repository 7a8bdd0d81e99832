"""Progress while cells run: a live line on a terminal, one line per cell elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.status import Status

from qregress.produce.protocol import Event, Progress, Say
from qregress.record import CellResult

_MARKS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "crashed": "[red]CRASHED[/]"}


class Display:
    """Shows which cell is at which step."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._cells = 0
        self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._console.width

    def expect(self, total: int) -> None:
        """How many cells there will be."""
        self._total = total

    def on_event(self, event: Event) -> None:
        """What a worker reports."""
        if isinstance(event, Say):
            self.line(event.text)
        elif isinstance(event, Progress) and self._console.is_terminal:
            text = f"{self._count()} {event.cell}: {event.stage} {event.done}/{event.total}"
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)

    def on_result(self, result: CellResult) -> None:
        """A cell has its verdict."""
        mark = _MARKS.get(result.verdict, f"[yellow]{result.verdict}[/]")
        self._console.print(f"{self._count()} {result.id}: {mark} ({result.seconds:.1f} s)")
        self._cells += 1

    def line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def stop(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _count(self) -> str:
        return f"\\[{self._cells + 1}/{self._total}]"

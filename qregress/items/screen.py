"""What is said while tests run: lines that stay, and a note behind pytest's own line where somebody looks on."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from qregress.produce.protocol import Event, Progress, Say
from qregress.record import CellResult
from qregress.report.live import Live


class Screen:
    """Goes round pytest's capture; a display that ``qregress run`` registers takes its place."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._live: Live | None = None
        self._display: Any = config.pluginmanager.get_plugin("qregress-display")

    def announce(self, count: int, line: str) -> None:
        """What is about to be run."""
        if self._display is not None:
            self._display.expect(count)
            self._display.line(line)
        else:
            self.show(f"qregress: {line}")

    def on_result(self, result: CellResult) -> None:
        """A cell has its verdict; pytest shows that itself."""
        if self._display is not None:
            self._display.on_result(result)

    def on_event(self, event: Event) -> None:
        """What a worker reports."""
        if self._display is not None:
            self._display.on_event(event)
            return
        if isinstance(event, Say):
            self.show(f"qregress: {event.text}")
        elif isinstance(event, Progress):
            text = f"{event.cell}: {event.stage} {event.done}/{event.total}"
            if self._config.get_verbosity() > 1:
                self.show(text)
            else:
                self._note(text)

    def _note(self, text: str) -> None:
        """Where somebody looks on, and pytest's own reporter writes the lines."""
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if type(reporter) is not pytest.TerminalReporter or self._config.get_verbosity() < 0:
            return
        writer = self._config.get_terminal_writer()
        if not (reporter.isatty and writer.hasmarkup):
            return
        self._live = self._live or Live(writer._file)  # noqa: SLF001 - its own write counts columns
        with self._screen():
            self._live.show(text, writer.fullwidth - writer.width_of_current_line)

    def end_note(self) -> None:
        """Take the note away."""
        if self._live is not None:
            with self._screen():
                self._live.clear()

    def _screen(self) -> contextlib.AbstractContextManager[None]:
        """What is written within is not in the output that pytest keeps for a failure."""
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        shown: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        return shown if capture is None else capture.global_and_fixture_disabled()

    def show(self, line: str) -> None:
        """A line, at once."""
        self.end_note()
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or self._config.get_verbosity() < 0:
            return
        with self._screen():
            reporter.ensure_newline()
            reporter.write_line(line)
            reporter.flush()

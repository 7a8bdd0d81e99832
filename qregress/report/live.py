"""What a cell is at, behind what pytest has written on its current line, for a terminal; gone before pytest goes on."""

from __future__ import annotations

from typing import TextIO

#: Save the cursor, write, erase what is left of an earlier note, put the cursor back: pytest counts columns.
_NOTE = "\x1b7\x1b[2m {}\x1b[0m\x1b[K\x1b8"
_ERASE = "\x1b[K"


class Live:
    """A note that replaces the one before it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = False

    def show(self, text: str, room: int) -> None:
        """Write as much of it as fits in so many columns; a line that broke could not be taken back."""
        if room > 1:
            self._write(_NOTE.format(text[: room - 1]))
            self._shown = True

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            self._write(_ERASE)
            self._shown = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

"""What is shown on a terminal while a cell runs: a note that leaves pytest's own lines as they are."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from tests.making import INT8, REFERENCE
from tests.plugin.project import Project

_NOTE = re.compile(r"\x1b7(.*?)\x1b\[K\x1b8")
_DISTURBING = ("NO_COLOR", "PY_COLORS", "CI", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_a_terminal(project: Project, *options: str, term: str = "xterm") -> str:
    """All that pytest writes to a terminal of 80 columns."""
    master, slave = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in _DISTURBING}
    environment |= {"TERM": term, "COLUMNS": "80"}
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *options]
    with subprocess.Popen(command, cwd=project.path, env=environment, stdout=slave, stderr=slave) as process:
        os.close(slave)
        written = b""
        while chunk := _read(master):
            written += chunk
    os.close(master)
    assert process.returncode == pytest.ExitCode.OK, written
    return written.decode().replace("\r\n", "\n")


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # how Linux says that the last writer is gone
        return b""


def notes(written: str) -> list[str]:
    """What was shown and taken away."""
    return [_COLOUR.sub("", note).strip() for note in _NOTE.findall(written)]


@pytest.fixture
def silent(project: Project) -> Project:
    """A project whose cells say nothing but their progress."""
    path = project.path / "fake_producer.py"
    said = "on_event(\n            Say("
    assert path.read_text().count(said) == 1
    path.write_text(path.read_text().replace(said, "str(\n            Say("))
    return project


@pytest.mark.parametrize("verbosity", [(), ("-v",)], ids=["plain", "v"])
def test_a_note_for_each_step(verbosity: tuple[str, ...], silent: Project) -> None:
    """Given a terminal, then cell and step are shown behind pytest's line, which is as ever without them."""
    written = on_a_terminal(silent, *verbosity, "-k", "reference or int8")
    shown = notes(written)
    assert len(shown) == 6
    assert f"{REFERENCE}: images 1/2".startswith(shown[0])
    assert f"{INT8}: images 2/2".startswith(shown[3])
    rest = _COLOUR.sub("", _NOTE.sub("", written)).replace("\x1b[K", "")
    if verbosity:
        assert re.search(
            rf"^{re.escape(f'test_matrix.py::test_quantized[{INT8}]')} PASSED +\[ 66%\]$", rest, re.MULTILINE
        )
    else:
        assert re.search(r"^test_matrix.py \.\.\. +\[100%\]$", rest, re.MULTILINE)


def test_never_wider_than_the_line(silent: Project) -> None:
    """Given a long line of pytest's, then a note takes what is left of 80 columns."""
    written = on_a_terminal(silent, "-v", "-k", "reference")
    used = len(f"test_matrix.py::test_quantized[{REFERENCE}] ")
    assert all(len(note) < 80 - used for note in notes(written))
    assert notes(written)


@pytest.mark.parametrize(("options", "term"), [(("-q",), "xterm"), (("-vv",), "xterm"), ((), "dumb")])
def test_no_notes(options: tuple[str, ...], term: str, silent: Project) -> None:
    """Given quiet, or lines for every step, or a terminal that cannot, then nothing is shown and taken away."""
    assert "\x1b7" not in on_a_terminal(silent, *options, term=term)


def test_nowhere_but_on_a_terminal(project: Project, spread: tuple[str, ...]) -> None:
    """Given a pipe, also one that wants colours, then there are no notes."""
    result = project.run_apart("--color=yes", *spread)
    result.assert_outcomes(passed=3)
    assert "\x1b7" not in result.stdout.str()

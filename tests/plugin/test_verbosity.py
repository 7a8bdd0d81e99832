"""``-q``, ``-v``, ``-vv``: how much is said, and that pytest's own lines stay whole."""

from __future__ import annotations

import re

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project


@pytest.mark.parametrize("verbosity", ["-qq", "-q", "-v", "-vv"])
def test_table_and_counts(verbosity: str, project: Project, spread: tuple[str, ...]) -> None:
    """Given any verbosity, then the table, the counts and the path are there."""
    result = project.run_apart(verbosity, *spread)
    result.stdout.fnmatch_lines([f"{REFERENCE} *pass", f"{INT8} *pass", f"{INT8_TE} *pass", "3 pass", "results: *"])


def test_quiet(project: Project, spread: tuple[str, ...]) -> None:
    """Given ``-q``, then nothing is said while cells run: pytest's dots stay in one line."""
    result = project.run_apart("-q", *spread)
    result.stdout.fnmatch_lines(["... *[[]100%[]]"])
    result.stdout.no_fnmatch_line("qregress: *")


def test_verbose(project: Project, spread: tuple[str, ...]) -> None:
    """Given ``-v``, then each cell has pytest's own line, with its outcome behind its id or before it."""
    project.behave({INT8: {"lpips": 0.2}})
    lines = project.run_apart("-v", *spread).outlines
    for cell, outcome in ((REFERENCE, "PASSED"), (INT8, "FAILED"), (INT8_TE, "PASSED")):
        item = re.escape(f"test_matrix.py::test_quantized[{cell}]")
        pattern = rf"(\[gw\d\] \[ *\d+%\] {outcome} {item} ?|{item} {outcome} +\[ *\d+%\])"
        assert sum(re.fullmatch(pattern, line) is not None for line in lines) == 1, lines


def test_very_verbose(project: Project) -> None:
    """Given ``-vv``, then each step of a cell has a line, and pytest's line follows whole."""
    result = project.run_apart("-vv", "-p", "no:xdist", "-k", "reference")
    result.stdout.fnmatch_lines([f"{REFERENCE}: images 1/2", f"{REFERENCE}: images 2/2", "test_matrix.py::* PASSED *"])

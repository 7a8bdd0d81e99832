"""What the tests of refreshes share: the options, and what a run accepted."""

from __future__ import annotations

import pytest

from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
ALL = [INT8_TE, INT8, REFERENCE]
MISSING, FAILING, EVERY = (f"--qregress-refresh={mode}" for mode in ("missing", "failing", "all"))
REASON = "--qregress-reason=torch 2.14"
#: Within its budget, beyond its baseline.
WORSE = {INT8: {"lpips": 0.02}}
FAILED_TITLE = "*_ test_quantized[[]pixart/int8/bs1[]] _*"


def accepted(project: Project) -> dict[str, str]:
    """Which cells the run made baselines, as ``run.json`` says."""
    return {cell.id: cell.accepted for cell in project.results().cells if cell.accepted is not None}


def verdicts(project: Project) -> dict[str, str]:
    """Cell id -> verdict."""
    return {cell.id: cell.verdict for cell in project.results().cells}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """Cells any of whose files differ."""
    files = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {"/".join(name.split("/")[1:4]) for name in files}

"""``--co``: ids, and nothing else is loaded, written or lost."""

from __future__ import annotations

import pytest

from tests.plugin.project import Project

_HEAVY = """
def pytest_unconfigure():
    import pathlib, sys
    loaded = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
    with (pathlib.Path(__file__).parent / "loaded.txt").open("a") as stream:
        stream.write(f"{loaded}\\n")
"""


def test_collect_only(project: Project, spread: tuple[str, ...]) -> None:
    """Given earlier results, when the matrix is only collected, then no model library and no file is touched."""
    project.run("-k", "reference")
    latest = project.path / ".qregress" / "latest"
    before = {path: path.stat().st_mtime_ns for path in [latest.parent, latest, *latest.rglob("*")]}
    project.add_conftest(_HEAVY)
    result = project.run_apart("--co", "-q", *spread)
    assert result.ret == pytest.ExitCode.OK
    assert sum("::test_quantized[" in line for line in result.outlines) == 3
    assert set((project.path / "loaded.txt").read_text().splitlines()) == {"[]"}
    assert {path: path.stat().st_mtime_ns for path in [latest.parent, latest, *latest.rglob("*")]} == before
    assert len(project.results().cells) == 1


def test_a_run_loads_nothing_on_this_side(project: Project, spread: tuple[str, ...]) -> None:
    """Given a whole run with the stand-in for workers, then neither pytest nor a process of xdist imported torch."""
    project.add_conftest(_HEAVY)
    project.run_apart(*spread).assert_outcomes(passed=3)
    assert set((project.path / "loaded.txt").read_text().splitlines()) == {"[]"}

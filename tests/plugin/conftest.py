"""Fixtures of the wiring's tests."""

from __future__ import annotations

import pytest

from tests.plugin.project import Project


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """One pipeline, the reference and two settings: three cells that pass."""
    return Project(pytester, monkeypatch)


@pytest.fixture(params=[(), ("-n0",), ("-n2",)], ids=["plain", "n0", "n2"])
def spread(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Options for xdist: a manner of pytest's holds without it, with it switched off, and over two processes."""
    options: tuple[str, ...] = request.param
    return options


@pytest.fixture
def kept(project: Project) -> Project:
    """The same with baselines, of which there are none yet."""
    project.keep_baselines()
    return project


@pytest.fixture
def known(kept: Project) -> Project:
    """The same with a baseline of each cell; what was written to count cells is gone."""
    kept.run("--qregress-refresh=missing").assert_outcomes(passed=3)
    for name in ("produced.txt", "noise.txt"):
        (kept.path / name).unlink()
    return kept

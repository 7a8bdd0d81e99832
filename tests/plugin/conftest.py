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

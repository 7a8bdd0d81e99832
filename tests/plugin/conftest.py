"""Fixtures of the wiring's tests."""

from __future__ import annotations

import pytest

from tests.plugin.project import Project


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """One pipeline, the reference and two settings: three cells that pass."""
    return Project(pytester, monkeypatch)

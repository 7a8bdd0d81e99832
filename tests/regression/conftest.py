"""Fixtures of the real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.regression.harness import Overlay, Runner


@pytest.fixture
def run_qregress(tmp_path: Path) -> Runner:
    """Run a matrix in a fresh folder."""
    return Runner(tmp_path)


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """Make a damaged copy of a library."""
    return Overlay(tmp_path / "overlay")

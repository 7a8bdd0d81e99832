"""Fixtures of the real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.regression.harness import Overlay, Runner


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under ``--dist loadgroup`` real runs are one process's: they would wait for each other's device anyway."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.xdist_group("device"))


@pytest.fixture
def run_qregress(tmp_path: Path) -> Runner:
    """Run a matrix in a fresh folder."""
    return Runner(tmp_path)


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """Make a damaged copy of a library."""
    return Overlay(tmp_path / "overlay")

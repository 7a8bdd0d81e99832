"""How xdist hands out this repository's own tests."""

from __future__ import annotations

from typing import Any

import pytest

REAL_RUNS = "tests/regression/"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over several processes real runs come first: they take longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(REAL_RUNS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module's tests go to one process, whose fixtures they share."""
    if config.getoption("dist") != "load":
        return None
    from tests.in_order import InOrder

    return InOrder(config, log)

"""How this repository's own tests are handed out by xdist, and kept from waiting for each other."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

REAL_RUNS = "tests/regression/"

# For torch in these processes, as ``qregress.produce.client`` has it for workers: two test processes on two cores both
# took four times as long while the threads of one spun on the core that the other needed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over several processes real runs come first: they take longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(REAL_RUNS))


def pytest_collection_finish() -> None:
    """The libraries that test modules import stay: walking over them takes half a second when memory is measured."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module's tests go to one process, whose fixtures they share."""
    if config.getoption("dist") != "load":
        return None
    from tests.in_order import InOrder

    return InOrder(config, log)

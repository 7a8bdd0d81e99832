"""Busy time out of spans of kernels."""

from __future__ import annotations

import pytest

from qregress.produce.profiling import Busy, busy_pairs, covered, device_busy


@pytest.mark.parametrize(
    ("spans", "total"),
    [
        ([], 0),
        ([(0, 5), (10, 5)], 10),
        ([(10, 5), (0, 5)], 10),
        ([(0, 10), (2, 3)], 10),
        ([(0, 10), (5, 10)], 15),
        ([(0, 10), (2, 3), (4, 10), (20, 1)], 15),
    ],
    ids=["nothing", "apart", "any order", "inside", "overlap", "all"],
)
def test_kernels_at_once_count_once(spans: list[tuple[int, int]], total: int) -> None:
    """Given spans on several streams, then their union is what the device was busy for."""
    assert covered(spans) == total


def test_a_cpu_has_no_busy_time() -> None:
    """Given a CPU, then nothing is called."""

    def call(_: int) -> bool:
        raise AssertionError

    assert busy_pairs(call, call, "cpu") == Busy()
    assert device_busy(call, "cpu") == Busy()

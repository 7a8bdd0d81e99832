"""Ratios of wall times that the host of a CUDA device moved."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from qregress.judge.host import excuse
from qregress.judge.timing_regression import busy, latency
from tests.unit.judge.making import on_cuda, remembered, sure

#: A cell of which the device waits for half, beside a reference of a second; and launches of 8 microseconds.
WALL, BUSY, LAUNCH = 2.2, 1.1, 8e-6
PAST = on_cuda(WALL, BUSY, launch_s=(LAUNCH,) * 5)


@pytest.mark.parametrize("pace", [1.2, 1 / 1.2])
def test_a_host_of_another_pace(pace: float) -> None:
    """Given calls that take longer or shorter, and a host that does, then wall time is void; busy time is not."""
    now = on_cuda(WALL * pace, BUSY, launch_s=(LAUNCH * pace,) * 5)
    found = sure(latency(now, remembered(PAST)))
    assert (found.verdict, found.better) == ("void", False)
    assert f"made the ratio {pace:.2f} times what it was; it took {8 * pace:.1f} µs to launch a kernel" in found.why
    assert "and 8.0 µs when it was accepted: " in found.why
    assert sure(busy(now, remembered(PAST))).verdict == "pass"


@pytest.mark.parametrize(("wall", "verdict"), [(1.14, "pass"), (1.16, "fail"), (0.7, "pass")])
def test_a_host_of_the_same_pace(wall: float, verdict: str) -> None:
    """Given a host that launches kernels as fast within 15 %, then what calls wait more is the code's: it is judged."""
    now = on_cuda(WALL * wall, BUSY, launch_s=(LAUNCH * 1.14,) * 5)
    found = sure(latency(now, remembered(PAST)))
    assert (found.verdict, found.better) == (verdict, wall < 0.85)


def test_a_host_that_moved_nothing() -> None:
    """Given a host of another pace, or one that was not timed, and a ratio that it did not move, then it is judged."""
    for launch_s in ((2 * LAUNCH,) * 5, UNSET):
        for wall, busy_s, verdict in ((WALL, BUSY, "pass"), (1.2 * WALL, 1.2 * BUSY, "fail")):
            found = sure(latency(on_cuda(wall, busy_s, launch_s=launch_s), remembered(PAST)))
            assert found.verdict == verdict, found.why


def test_more_than_a_host_explains() -> None:
    """Given a host at three quarters of its pace, when a ratio is larger than that and the margin make it, it fails."""
    launch_s, beyond = (LAUNCH * 4 / 3,) * 5, 4 / 3 * 1.15
    for wall, verdict in ((beyond - 0.01, "void"), (beyond + 0.01, "fail")):
        assert sure(latency(on_cuda(WALL * wall, BUSY, launch_s=launch_s), remembered(PAST))).verdict == verdict
    # Nor is the device's own part excused by what the host did: of 1.5 times, 1.25 are the device's.
    assert sure(latency(on_cuda(WALL * 1.5, BUSY * 1.25, launch_s=launch_s), remembered(PAST))).verdict == "fail"


def test_a_faster_host_excuses_nothing() -> None:
    """Given a host that made the ratio smaller, when it is larger than its limit all the same, then it fails."""
    now = on_cuda(WALL * 1.2, BUSY * 1.4, launch_s=(LAUNCH / 2,) * 5)
    assert now.timing is not None
    assert PAST.timing is not None
    found = excuse(now.timing, PAST.timing)
    assert found is not None
    assert found.factor == 1.0
    assert sure(latency(now, remembered(PAST))).verdict == "fail"


def test_a_reference_that_waits() -> None:
    """Given launches as fast as ever, when the reference waits longer for the host, then its pace is another."""
    now = on_cuda(WALL, BUSY, reference=1.25, launch_s=(LAUNCH,) * 5)
    found = sure(latency(now, remembered(PAST)))
    assert found.verdict == "void"
    assert "the ratio 0.80 times what it was; its reference waits for 24% of its time, and did for 5%: " in found.why


def test_whatever_tells_most() -> None:
    """Given launches and a reference that both are slower, then the pace is that of the slower one."""
    launch_s = (LAUNCH * 1.2,) * 5
    for wall, verdict in (
        (3.1, "void"),
        (3.2, "fail"),
    ):  # of a limit of 2.53 times 1.25, which is what the reference took
        now = on_cuda(wall * 1.25, BUSY, reference=1.25, launch_s=launch_s)
        assert sure(latency(now, remembered(PAST))).verdict == verdict


@pytest.mark.parametrize(("now", "then", "told"), [(True, False, "when it was accepted"), (False, True, "now")])
def test_a_host_that_was_not_timed(now: bool, then: bool, told: str) -> None:
    """Given a ratio that the host moved and records of before hosts were timed, then it is void, up to what it did."""
    launches = [(LAUNCH,) * 5 if each else UNSET for each in (now, then)]
    past = remembered(on_cuda(WALL, BUSY, launch_s=launches[1]))
    found = sure(latency(on_cuda(1.3 * WALL, BUSY, launch_s=launches[0]), past))
    assert found.verdict == "void"
    assert f"the ratio 1.30 times what it was; its launch overhead was not measured {told}: " in found.why
    assert sure(latency(on_cuda(1.6 * WALL, 1.25 * BUSY, launch_s=launches[0]), past)).verdict == "fail"


def test_calls_that_were_not_profiled() -> None:
    """Given no busy time, then nobody knows what the host did, and only its pace says whether a ratio is judged."""
    past, same, other = (
        on_cuda(WALL, BUSY, launch_s=(launch,) * 5, profiled=False) for launch in (LAUNCH, LAUNCH, 1.2 * LAUNCH)
    )
    assert sure(latency(same, remembered(past))).verdict == "pass"
    found = sure(latency(other, remembered(past)))
    assert found.verdict == "void"
    assert found.why.startswith("how long calls wait for their host is not known; it took 9.6 µs to launch a kernel")

"""Ratios of wall times that the host of a CUDA device moved."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from qregress.judge.host import excuse
from qregress.judge.timing_regression import busy, latency
from qregress.record import Check, Record, Stages
from tests.unit.judge.making import on_cuda, remembered, sure

#: A cell whose device waits for half of the time, beside a reference of a second; and launches of 8 microseconds. Its
#: ratio may be 1.15 times as large.
WALL, BUSY, LAUNCH = 2.2, 1.1, 8e-6


def launched(pace: float = 1.0) -> tuple[float, ...]:
    """By a host that takes so many times as long."""
    return (LAUNCH * pace,) * 5


PAST = on_cuda(WALL, BUSY, launch_s=launched())
#: One that hardly waits, beside a reference that does not either: its ratio may be 1.05 times as large.
CALM = on_cuda(1.2, 1.2, launch_s=launched())


def judged(
    wall: float,
    device: float = 1.0,
    *,
    reference: float = 1.0,
    launch_s: tuple[float, ...] | UnsetType = UNSET,
    past: Record = PAST,
) -> Check:
    """The cell with its wall and its busy time so many times as long."""
    assert past.timing is not None
    assert past.timing.busy_s
    seconds = past.timing.samples_s[0] * wall, past.timing.busy_s[0] * device
    return sure(latency(on_cuda(*seconds, reference=reference, launch_s=launch_s), remembered(past)))


def test_a_slower_host() -> None:
    """Given calls that take longer on a host that does, then wall time is void; busy time is not."""
    found = judged(1.2, launch_s=launched(1.2))
    assert (found.verdict, found.better) == ("void", False)
    told = "waiting for the host has multiplied the ratio by 1.20 since, and launch overhead was 8.0 µs and is 9.6 µs: "
    assert found.why.startswith(told)
    assert sure(busy(on_cuda(1.2 * WALL, BUSY, launch_s=launched(1.2)), remembered(PAST))).verdict == "pass"


def test_a_faster_host() -> None:
    """Given calls that take less on a host that does, then nobody knows what that hides, and nothing is better."""
    found = judged(0.8, launch_s=launched(0.8))
    assert (found.verdict, found.better) == ("void", False)
    # The device is busy for longer, which the host has nearly made up for.
    assert judged(1.1, 1.22, launch_s=launched(0.8)).verdict == "void"


@pytest.mark.parametrize("pace", [1.14, 1 / 1.14])
@pytest.mark.parametrize(("wall", "verdict"), [(1.14, "pass"), (1.16, "fail"), (0.7, "pass")])
def test_a_host_of_the_same_pace(wall: float, verdict: str, pace: float) -> None:
    """Given a host that is off by no more than the margin has room for, then what calls wait more is the code's."""
    found = judged(wall, launch_s=launched(pace))
    assert (found.verdict, found.better) == (verdict, wall < 0.85)


def test_a_slower_host_within_the_limit() -> None:
    """Given a ratio below its limit, which a slower host has only made larger, then it passes."""
    assert judged(1.14, launch_s=launched(2.0)).verdict == "pass"


@pytest.mark.parametrize("launch_s", [launched(2.0), launched(0.5), UNSET])
def test_a_host_that_moved_nothing(launch_s: tuple[float, ...] | UnsetType) -> None:
    """Given a host of another pace, or one that was not timed, and a ratio that waiting did not move, it is judged."""
    assert judged(1.0, launch_s=launch_s).verdict == "pass"
    assert judged(1.2, 1.2, launch_s=launch_s).verdict == "fail"
    assert judged(0.96, launch_s=launch_s).verdict == "pass"
    assert judged(0.94, launch_s=launch_s).verdict == "void"


def test_more_than_a_host_explains() -> None:
    """Given a host at three quarters of its pace, when a ratio is larger than that and the margin make it, it fails."""
    beyond = 4 / 3 * 1.15
    for wall, verdict in ((beyond - 0.01, "void"), (beyond + 0.01, "fail")):
        assert judged(wall, launch_s=launched(4 / 3)).verdict == verdict
    # Nor is the device's own part excused by what the host did: of 1.5 times, 1.25 are the device's.
    assert judged(1.5, 1.25, launch_s=launched(4 / 3)).verdict == "fail"


def test_a_faster_host_makes_no_cell_wait() -> None:
    """Given a faster host and a reference that waits as ever, when the cell waits longer, that is the code's."""
    assert judged(1.2, launch_s=launched(0.8)).verdict == "fail"


def test_a_faster_host_has_references_wait_less() -> None:
    """Given a cell that never waits beside a reference that did, then a faster host makes the ratio larger."""
    past = on_cuda(7.0, 7.0, reference=1.4, launch_s=launched(1.5))
    # Whatever launches say, which are no part of the calls: the reference takes 1 / 1.4 of its time.
    for launch_s in (launched(), launched(1.5), launched(3.0)):
        for device, verdict in ((1.1, "void"), (1.14, "void"), (1.16, "fail")):
            found = sure(latency(on_cuda(7.0 * device, 7.0 * device, launch_s=launch_s), remembered(past)))
            assert found.verdict == verdict, found.why


def test_calls_that_hardly_wait() -> None:
    """Given a margin of 5 %, then a host that is off by more may have moved a ratio beyond it."""
    for wall, device, pace in ((1.0 / 0.91, 1.0, 1.14), (1.048 * 1.02, 1.02, 2.0)):
        assert judged(wall, device, launch_s=launched(pace), past=CALM).verdict == "void"
        assert judged(wall, device, launch_s=launched(1.04), past=CALM).verdict == "fail"
    assert judged(1.1, 1.1, launch_s=launched(2.0), past=CALM).verdict == "fail"


def test_a_reference_that_waits() -> None:
    """Given launches as fast as ever, when the reference waits longer for the host, then its pace is another."""
    found = judged(1.0, reference=1.06, launch_s=launched())
    assert found.verdict == "void"
    told = "the ratio by 0.94 since, and its reference takes 1.06 times as long as then, per second of busy time: "
    assert told in found.why
    assert judged(0.94, launch_s=launched()).verdict == "pass"


def test_whatever_tells_most() -> None:
    """Given launches and a reference that both are slower, then the pace is that of the slower one."""
    for pace, beyond in ((1.2, 1.15 * 1.25), (1.4, 1.15 * 1.4)):
        for wall, verdict in ((beyond - 0.01, "void"), (beyond + 0.01, "fail")):
            assert judged(wall * 1.25, reference=1.25, launch_s=launched(pace)).verdict == verdict


@pytest.mark.parametrize(("now", "then", "told"), [(True, False, "then (accept it again)"), (False, True, "now")])
def test_a_host_that_was_not_timed(now: bool, then: bool, told: str) -> None:
    """Given a ratio that waiting moved and records of before hosts were timed, then it is void, up to what that did."""
    mine, theirs = (launched() if each else UNSET for each in (now, then))
    past = on_cuda(WALL, BUSY, launch_s=theirs)
    found = judged(1.3, launch_s=mine, past=past)
    assert found.verdict == "void"
    assert f"the ratio by 1.30 since, and launch overhead was not measured {told}: " in found.why
    assert judged(1.6, 1.25, launch_s=mine, past=past).verdict == "fail"


@pytest.mark.parametrize("how", ["not profiled", "other steps"])
def test_waiting_that_is_not_known(how: str) -> None:
    """Given no busy time, or of other steps, then a host explains as much as it is off, and an unknown one nothing."""

    def known(wall: float, pace: float | None, *, accepted: bool = False) -> Record:
        launch_s = launched(pace) if pace else UNSET
        record = on_cuda(wall * WALL, BUSY, launch_s=launch_s, profiled=how == "other steps")
        assert record.timing is not None
        steps = 4 if accepted else 5
        spent = {
            name: Stages(encode_s=0.0, step_s=seconds / steps, steps=steps, decode_s=0.0)
            for name, seconds in (("stages", wall * WALL), ("reference_stages", 1.0))
        }
        timing = msgspec.structs.replace(record.timing, busy_steps=steps, **spent)
        return msgspec.structs.replace(record, timing=timing) if how == "other steps" else record

    past = remembered(known(1.0, 1.0, accepted=True))
    same = [(1.14, 1.0, "pass"), (1.16, 1.0, "fail")]
    for wall, pace, verdict in (*same, (1.0, 1.2, "void"), (1.3, 1.2, "void"), (1.4, 1.2, "fail")):
        assert sure(latency(known(wall, pace), past)).verdict == verdict
    assert sure(latency(known(1.16, None), past)).verdict == "fail"
    assert sure(latency(known(1.3, 1.2), past)).why.startswith("waiting for the host was not measured, and launch ov")


def test_a_device_that_never_worked() -> None:
    """Given a cell of which the device waits for all of the time, then what waiting did is not known."""
    assert PAST.timing is not None
    idle = msgspec.structs.replace(PAST.timing, busy_s=(0.0,), launch_s=launched(1.2))
    found = excuse(idle, PAST.timing, 0.15)
    assert found is not None
    assert found.why.startswith("waiting for the host was not measured")

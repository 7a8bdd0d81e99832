"""Busy time against limits of the user's, and what is said of a device that waits."""

from __future__ import annotations

import pytest

from qregress.judge.budgets import Limits
from qregress.judge.verdict import judge
from qregress.record import Check, Record
from tests.making import make_fingerprint, make_record, make_timing


def waiting(disturbed: tuple[str, ...] = ()) -> Record:
    """Two seconds a call, of which the device is busy for one; its reference for 0.8 of one."""
    timing = make_timing(2.0, 1.0, busy_s=(1.02, 1.0), reference_busy_s=(0.8, 0.82), disturbed=disturbed)
    return make_record(timing=timing)


def checks(record: Record, **limits: str) -> dict[str, Check]:
    """What is checked under limits."""
    return {check.name: check for check in judge(record, None, Limits.parse(limits).limits).checks}


@pytest.mark.parametrize(
    ("limit", "verdict", "why"),
    [
        ("1.3x", "pass", "1.250x: busy for 1.000 s, the reference for 0.800 s, limit 1.3x (budget 1.3x)"),
        ("1.2x", "fail", "1.250x: busy for 1.000 s, the reference for 0.800 s, limit 1.2x (budget 1.2x)"),
        ("1.1 s", "pass", "busy 1.000 s, limit 1.100 s (budget 1.1 s)"),
        ("0.9 s", "fail", "busy 1.000 s, limit 0.900 s (budget 0.9 s)"),
    ],
)
def test_busy(limit: str, verdict: str, why: str) -> None:
    """Given a limit of busy time, then the least of the profiled calls is held against it."""
    found = checks(waiting(), busy=limit)["latency.busy"]
    assert (found.verdict, found.why) == (verdict, why)


@pytest.mark.parametrize("limit", ["9x", "9 s"])
def test_a_disturbed_device(limit: str) -> None:
    """Given something else on the device, then no limit of time binds: that it was within one says nothing either."""
    found = checks(waiting(("process 7 used the device as well",)), busy=limit, latency=limit)
    assert {check.verdict for name, check in found.items() if name.startswith("latency.")} == {"void"}


def test_that_it_waits_is_said() -> None:
    """Given a device that is idle for half a call, then a note says so, as wall time is then the host's."""
    notes = judge(waiting(), None, {}).notes
    assert "the device waits for its host in 50% of a call; it is busy for 1.000 s, 1.250x its reference" in notes


def test_a_gpu_that_could_not_be_profiled() -> None:
    """Given a limit of busy time and a profiler that saw nothing, then it is void on a GPU, and not asked of a CPU."""
    timing = make_timing(2.0, 1.0, unwatched=("its clocks (Not Supported)",))
    on_gpu = make_record(timing=timing, fingerprint=make_fingerprint(device_class="cuda-nvidia-h100-79gib"))
    found = checks(on_gpu, busy="1.3x")["latency.busy"]
    assert (found.verdict, found.why) == ("void", "torch's profiler saw no kernel: busy time is not known")
    assert "latency.busy" not in checks(make_record(timing=timing, fingerprint=make_fingerprint()), busy="1.3x")
    assert "not watched while it was timed: its clocks (Not Supported)" in judge(on_gpu, None, {}).notes

"""Time against the accepted record on a CUDA device: busy seconds, hosts, and what disturbs a device."""

from __future__ import annotations

import msgspec
import pytest

from qregress.judge.timing_regression import busy, latency
from tests.making import make_acceptable, make_fingerprint, make_timing
from tests.unit.judge.making import H100, on_cuda, remembered, sure


@pytest.mark.parametrize(("now", "verdict"), [(1.2, "pass"), (1.259, "pass"), (1.27, "fail"), (1.32, "fail")])
def test_a_busy_device(now: float, verdict: str) -> None:
    """Given a device that is busy all the time, then 5 % more is allowed of wall and of busy time, and 10 % is told."""
    record, past = on_cuda(now, 0.99 * now), remembered(on_cuda(1.2, 0.99 * 1.2))
    for check in (latency, busy):
        assert sure(check(record, past)).verdict == verdict


def test_a_device_that_waits_for_its_host() -> None:
    """Given calls that wait for the host, then wall time may be 15 % more there; busy time tells 10 % all the same."""
    past = remembered(on_cuda(2.2, 1.1))
    slower = on_cuda(2.42, 1.21)
    assert sure(latency(slower, past)).verdict == "pass"
    found = sure(busy(slower, past))
    assert (found.verdict, found.name) == ("fail", "regression.busy")
    assert found.why == "busy 1.274x as long as the reference, limit 1.216x (accepted 1.158x + 0.058)"


def test_calls_that_differ() -> None:
    """Given profiled calls of which one took a quarter longer, then and now, then an eighth more decides nothing."""
    calm, past = on_cuda(2.2, 1.1), remembered(on_cuda(2.2, 1.1))
    assert calm.timing is not None
    assert calm.timing.busy_s
    slower = msgspec.structs.replace(calm.timing, busy_s=(1.27, 1.13 * 1.1))
    assert sure(busy(msgspec.structs.replace(calm, timing=slower), past)).verdict == "fail"
    scattered = msgspec.structs.replace(slower, reference_busy_s=(0.95, 1.25 * 0.95))
    found = sure(busy(msgspec.structs.replace(calm, timing=scattered), past))
    assert found.verdict == "void"
    assert found.why.startswith("too noisy, profiled calls differ by 25%: busy 1.308x")


def test_other_steps() -> None:
    """Given busy time of so many steps and of whole calls, then one says nothing of the other."""
    past, now = on_cuda(2.2, 1.1), on_cuda(2.2, 1.1)
    assert now.timing is not None
    now = msgspec.structs.replace(now, timing=msgspec.structs.replace(now.timing, busy_steps=5))
    assert sure(busy(now, remembered(now))).verdict == "pass"
    found = sure(busy(now, remembered(past)))
    assert found.verdict == "void"
    assert found.why == "accepted of whole calls, profiled over 5 steps: their ratios are not comparable"


def test_another_host() -> None:
    """Given another host than accepted, then wall time is void where calls wait for it, and only there."""
    past, elsewhere = remembered(on_cuda(2.2, 1.1)), on_cuda(2.2, 1.1, host="another")
    found = sure(latency(elsewhere, past))
    assert found.verdict == "void"
    assert found.why == "calls wait for the host, which was a host when it was accepted and is another"
    assert sure(busy(elsewhere, past)).verdict == "pass"
    assert sure(latency(on_cuda(1.2, 1.19, host="another"), remembered(on_cuda(1.2, 1.19)))).verdict == "pass"


def test_another_device() -> None:
    """Given another GPU of the same class, then no ratio is held against the accepted one."""
    past, elsewhere = remembered(on_cuda(1.2, 1.19)), on_cuda(1.2, 1.19, name="NVIDIA H100 PCIe")
    for check in (latency, busy):
        found = sure(check(elsewhere, past))
        assert found.verdict == "void"
        assert "accepted on NVIDIA H100, this is NVIDIA H100 PCIe" in found.why


def test_a_disturbed_device() -> None:
    """Given a device that another process used, then nothing of time is judged there, and why is said."""
    past = remembered(on_cuda(1.2, 1.19))
    seen = "process 7 used the device as well, up to 40 % of it"
    for check in (latency, busy):
        found = sure(check(on_cuda(1.5, 1.49, disturbed=(seen,)), past))
        assert (found.verdict, found.why) == ("void", f"{seen}: run it again")


def test_an_accepted_run_that_was_disturbed() -> None:
    """Given what was accepted of a disturbed device, then it limits nothing."""
    seen = "process 7 used the device as well"
    past = remembered(on_cuda(1.2, 1.19, disturbed=(seen,)))
    for check in (latency, busy):
        found = sure(check(on_cuda(1.2, 1.19), past))
        assert (found.verdict, found.why) == ("void", f"the accepted run was disturbed: {seen}; accept a calmer one")


def test_busy_time_that_is_gone() -> None:
    """Given busy time when it was accepted and none now, then that is a failure; on a CPU there is nothing to ask."""
    gone = make_acceptable(timing=make_timing(1.2, 1.0), fingerprint=make_fingerprint(**H100))
    assert sure(busy(gone, remembered(on_cuda(1.2, 1.19)))).verdict == "fail"
    assert sure(busy(on_cuda(1.2, 1.19), remembered(gone))).verdict == "new"
    assert busy(gone, remembered(gone)) is None

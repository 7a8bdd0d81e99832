"""What is seen of a device, with a stand-in for NVML: there is no GPU where unit tests run."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from qregress.produce.disturbance import Disturbances, disturbances

HOT = pynvml.nvmlClocksEventReasonSwThermalSlowdown
POWER = pynvml.nvmlClocksEventReasonSwPowerCap


def nvml(
    reasons: int = 0, pids: tuple[int, ...] = (), used: dict[int, int] | None = None, mine: int | None = None
) -> Any:
    """The device as NVML shows it; ``used``: percent by process, ``None``: it does not tell; ``mine``: this process."""
    running = (mine or os.getpid(), *pids)

    def utilization(_handle: object, _since: int) -> list[Any]:
        if used is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [SimpleNamespace(pid=pid, smUtil=share, timeStamp=9) for pid, share in used.items()]

    return SimpleNamespace(
        **{name: value for name, value in vars(pynvml).items() if name.startswith(("nvmlClocks", "NVMLError"))},
        nvmlDeviceGetCurrentClocksEventReasons=lambda _: reasons,
        nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=pid) for pid in running],
        nvmlDeviceGetProcessUtilization=utilization,
    )


def seen(*looks: Any) -> tuple[str, ...]:
    """What is told after looks at devices."""
    found, since = Disturbances(), 0
    for look in looks:
        since = found.look(look, None, since)
    return found.told()


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([nvml()], ()),
        ([nvml(POWER)], ()),
        ([nvml(HOT), nvml(), nvml(HOT | POWER)], ("the device was hot in 2 of 3 looks",)),
        ([nvml(pids=(7,), used={7: 40}), nvml()], ("process 7 used the device as well, up to 40 % of it",)),
        ([nvml(pids=(7,), used={7: 0, os.getpid(): 90})], ()),
        ([nvml(pids=(7,), used=None)], ("process 7 used the device as well",)),
        ([nvml(pids=(7,), used={99: 40})], ("process 7 used the device as well",)),
        ([nvml(pids=(7,), mine=99)], ()),
    ],
    ids=[
        "alone",
        "at its power limit",
        "hot",
        "another process",
        "one that does nothing",
        "one that cannot be seen",
        "samples by other numbers",
        "processes by other numbers",
    ],
)
def test_what_is_told(looks: list[Any], told: tuple[str, ...]) -> None:
    """Given what NVML shows, then heat and what others did are told, the power limit of a busy device is not."""
    assert seen(*looks) == told


def test_a_cpu_is_not_watched() -> None:
    """Given a CPU, then nothing is seen, and NVML is not asked."""
    with disturbances("cpu") as found:
        pass
    assert found.told() == ()


def test_what_cannot_be_watched() -> None:
    """Given a driver that knows this process by another number, or tells no clocks, then that is said, once."""
    found = Disturbances()
    for _ in range(2):
        found.look(nvml(mine=99), None, 0)
    assert found.unwatched() == ("other processes (the driver knows this one by another number)",)

    def fail(_: object) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    found, deaf = Disturbances(), nvml(pids=(7,), used={7: 9})
    deaf.nvmlDeviceGetCurrentClocksEventReasons = fail
    found.look(deaf, None, 0)
    assert found.unwatched() == ("its clocks (Not Supported)",)
    assert found.told() == ("process 7 used the device as well, up to 9 % of it",)

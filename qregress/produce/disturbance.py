"""What disturbs timings on a CUDA device, watched through NVML while they are taken."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

#: How often to look. A look takes a tenth of a millisecond of another thread's time.
_EVERY_S = 0.2
#: NVML's bits of why a clock is held down, as far as it is no ordinary thing: under load an H100 runs into its power
#: limit all the time (seen at 650 W), with both of what is compared.
_THROTTLED = {
    "nvmlClocksEventReasonSwThermalSlowdown": "hot",
    "nvmlClocksThrottleReasonHwSlowdown": "slowed down by its hardware",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "too hot",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "braked by its power supply",
}


class Disturbances:
    """What was seen, in words; nothing where nothing could be watched."""

    def __init__(self) -> None:
        self._looks = 0
        self._throttled: Counter[str] = Counter()
        self._others: dict[int, int] = {}
        self._sampled = False
        self._unwatched: dict[str, str] = {}

    def look(self, nvml: Any, handle: Any, since_us: int) -> int:
        """One look at clocks and at processes but this one; returns the time of the newest sample of utilization."""
        self._looks += 1
        try:
            reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
            self._throttled.update(words for name, words in _THROTTLED.items() if reasons & getattr(nvml, name))
        except nvml.NVMLError as error:
            self.cannot("its clocks", str(error))
        try:
            running = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        except nvml.NVMLError as error:
            self.cannot("other processes", str(error))
            return since_us
        mine = _mine()
        if running and not running & mine:
            # In a container a driver may know processes by the host's numbers: this one would be said to be another.
            self.cannot("other processes", "the driver knows this one by another number")
            return since_us
        others = running - mine
        for pid in others:
            self._others.setdefault(pid, 0)
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, since_us) if others else ()
        except nvml.NVMLError:  # none since then, or none ever on this device
            return since_us
        for sample in samples:
            self._sampled = self._sampled or sample.pid in running
            if sample.pid in others:
                self._others[sample.pid] = max(self._others[sample.pid], sample.smUtil)
        return max([since_us, *(int(sample.timeStamp) for sample in samples)])

    def cannot(self, what: str, why: str) -> None:
        """Something was not seen, and why."""
        self._unwatched.setdefault(what, why)

    def unwatched(self) -> tuple[str, ...]:
        """What could not be watched, each with its reason."""
        return tuple(f"{what} ({why})" for what, why in self._unwatched.items())

    def told(self) -> tuple[str, ...]:
        """One reason each. A process that was seen to do nothing is none; where that cannot be seen, it is one."""
        looks = self._looks
        throttled = [f"the device was {why} in {n} of {looks} looks" for why, n in sorted(self._throttled.items())]
        others = [
            f"process {pid} used the device as well" + (f", up to {share} % of it" if share else "")
            for pid, share in sorted(self._others.items())
            if share or not self._sampled
        ]
        return (*throttled, *others)


def _mine() -> set[int]:
    """This process and what it has started: compilers, say."""
    return {os.getpid(), *(int(text) for text in _children().split())}


def _children() -> str:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return path.read_text(encoding="ascii") if path.exists() else ""


@contextmanager
def disturbances(device: str) -> Iterator[Disturbances]:
    """Watch a device while something is timed there; a CPU is not watched."""
    found = Disturbances()
    opened = _open(device, found) if device.startswith("cuda") else None
    if opened is None:
        yield found
        return
    nvml, handle = opened
    over = threading.Event()

    def watch() -> None:
        since = time.time_ns() // 1000
        while not over.is_set():
            since = found.look(nvml, handle, since)
            over.wait(_EVERY_S)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        nvml.nvmlShutdown()


def _open(device: str, found: Disturbances) -> tuple[Any, Any] | None:
    """NVML and its handle of a device; ``None`` where there is none, as in WSL."""
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        found.cannot("its clocks and other processes", str(error))
        return None

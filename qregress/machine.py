"""What this machine is, as far as that can be told without torch."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Whose versions decide what a cell gives.
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "optimum-quanto",
    "torchao",
    "bitsandbytes",
    "accelerate",
    "torchmetrics",
    "open_clip_torch",
    "qregress",
)
DRIVER = "nvidia-driver"


def versions(device: str) -> dict[str, str]:
    """Package -> version, of those that are installed; of a GPU its driver's as well."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    driver = _nvml(lambda nvml: nvml.nvmlSystemGetDriverVersion()) if device.startswith("cuda") else ""
    return found | ({DRIVER: driver} if driver else {})


def cpuinfo(key: str) -> str:
    """A line of the first processor in Linux's table; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def device_name(device: str) -> str:
    """The model of a processor or GPU, empty where that is not known."""
    if not device.startswith("cuda"):
        return cpuinfo("model name") or platform.processor() or platform.machine()
    number = int(device.partition(":")[2] or 0)
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    which = visible[number] if number < len(visible) else str(number)

    def name(nvml: Any) -> str | bytes:
        by_index = which.isdecimal()
        find = nvml.nvmlDeviceGetHandleByIndex if by_index else nvml.nvmlDeviceGetHandleByUUID
        found: str | bytes = nvml.nvmlDeviceGetName(find(int(which) if by_index else which))
        return found

    return _nvml(name)


def cuda_devices() -> int:
    """How many CUDA devices a driver offers that is new enough for torch's CUDA; 0 where only torch itself can tell.

    torch takes two to six seconds to import, and is needed by workers alone.
    """
    needed = _torch_cuda()
    if not needed:
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    version, count = ctypes.c_int(), ctypes.c_int()
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDriverGetVersion(ctypes.byref(version)),
        lambda: driver.cuDeviceGetCount(ctypes.byref(count)),
    )
    failed = any(call() for call in calls)
    return count.value if not failed and version.value // 1000 >= needed else 0


def wake(device: str) -> None:
    """Have the driver make a CUDA device's context, which torch will find, while something else is done.

    Says nothing of a driver that cannot: torch does, when it is asked.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as torch does: older drivers load every kernel else
    with suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        number, context = ctypes.c_int(), ctypes.c_void_p()
        index = int(device.partition(":")[2] or 0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(number), index) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number)


def _torch_cuda() -> int:
    """Major version of the CUDA that torch was built for, by the file that its build has left; 0: for none."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return 0
    path = Path(spec.origin).with_name("version.py")
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"](\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found is not None else 0


def _nvml(ask: Callable[[Any], str | bytes]) -> str:
    """An answer of NVML, empty where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        answer = ask(pynvml)
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ""
    return answer.decode() if isinstance(answer, bytes) else answer

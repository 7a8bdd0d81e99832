"""What this machine is, as far as that can be told without torch."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
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
    """How many CUDA devices the driver offers to a torch that was built for CUDA; 0 where only torch itself can tell.

    torch takes two to six seconds to import, and is needed by workers alone.
    """
    if not _torch_is_for_cuda():
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def _torch_is_for_cuda() -> bool:
    """By the version that its build has left."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    path = Path(spec.origin).with_name("version.py")
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return re.search(r"^cuda\b[^=\n]*=\s*['\"]\d", text, re.MULTILINE) is not None


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

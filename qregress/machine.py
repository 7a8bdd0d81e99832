"""What this machine is, as far as that can be told without torch."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

#: Whose versions decide what a cell gives.
PACKAGES = ("torch", "diffusers", "transformers", "optimum-quanto", "torchmetrics", "open_clip_torch", "qregress")


def versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpuinfo(key: str) -> str:
    """A line of the first processor in Linux's table; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def device_name(device: str) -> str:
    """The model of a processor or GPU, empty where that is not known; ``cuda`` is the first that NVML lists."""
    if not device.startswith("cuda"):
        return cpuinfo("model name")
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        name: str | bytes = pynvml.nvmlDeviceGetName(handle)
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ""
    return name.decode() if isinstance(name, bytes) else name

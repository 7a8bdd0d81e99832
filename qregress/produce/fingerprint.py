"""Where a record was made."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from qregress.record import Fingerprint

PACKAGES = ("torch", "diffusers", "transformers", "optimum-quanto", "torchmetrics", "open_clip_torch", "qregress")


def fingerprint(device: str) -> Fingerprint:
    """Device, platform and library versions of this process."""
    name, size = _cuda(device) if device.startswith("cuda") else _cpu()
    return Fingerprint(
        python=platform.python_version(),
        platform=platform.platform(),
        device=device,
        device_name=name,
        device_bytes=size,
        threads=torch.get_num_threads(),
        packages={package: found for package in PACKAGES if (found := _version(package)) is not None},
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda(device: str) -> tuple[str, int]:
    properties = torch.cuda.get_device_properties(device)
    return properties.name, properties.total_memory


def _cpu() -> tuple[str, int]:
    """Model and instruction set, which decides the kernels."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})", size

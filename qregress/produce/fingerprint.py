"""Where a record was made."""

from __future__ import annotations

import os
import platform
import re

import torch
from msgspec import UNSET

from qregress.machine import cpuinfo, device_name, versions
from qregress.record import Fingerprint

#: Instructions beyond the vector width for which torch and oneDNN have kernels of their own, with other rounding.
_FLAGS = {
    "vnni": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16",),
    "fp16": ("avx512_fp16",),
    "amx": ("amx_bf16", "amx_int8"),
}


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
        packages=versions(device),
        device_class=device_class(device),
        host=_cpu()[0] if device.startswith("cuda") else UNSET,
    )


def device_class(device: str) -> str:
    """Which records may be compared: GPU model, memory and MIG slice; of a CPU, what decides its kernels.

    A name for a folder: ``cuda-nvidia-h100-80gb-hbm3-79gib``, ``cpu-x86_64-avx512-vnni-bf16``.
    """
    if device.startswith("cuda"):
        name, size = _cuda(device)
        return f"cuda-{_slug(name)}-{size // 1024**3}gib"
    here = set(cpuinfo("flags").split())
    flags = [name for name, any_of in _FLAGS.items() if here.intersection(any_of)]
    return "-".join(["cpu", platform.machine(), _slug(torch.backends.cpu.get_cpu_capability()), *flags])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")


def _cuda(device: str) -> tuple[str, int]:
    properties = torch.cuda.get_device_properties(device)
    return properties.name, properties.total_memory


def _cpu() -> tuple[str, int]:
    """Model and instruction set, which decides the kernels."""
    name = device_name("cpu")
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})", size

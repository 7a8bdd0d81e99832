"""What there is to run on."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from qregress.doctor.facts import Fact, absence
from qregress.errors import one_line, typed_line
from qregress.units import format_bytes

_DRIVER = Path("/proc/driver/nvidia/version")
_INSTALL_TORCH = "install torch for CUDA as https://pytorch.org/get-started/locally says"


class Device(msgspec.Struct, frozen=True):
    """A device as ``--qregress-device`` names it, and what it is."""

    name: str
    model: str

    @property
    def kind(self) -> str:
        """As in a pipeline's ``devices``."""
        return self.name.partition(":")[0]


def import_torch() -> Fact | None:
    """What is wrong with torch, ``None`` where it can be imported."""
    try:
        import torch  # noqa: F401
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        detail = f"cannot be imported: {typed_line(error)}"
        return Fact(
            name="import torch", state="missing", detail=detail, how="pip install --force-reinstall torch", named=True
        )
    return None


def devices(*, cuda_only: bool) -> tuple[list[Device], tuple[Fact, ...]]:
    """The devices, and a fact for each; ``cuda_only``: the configuration has no cell for anything else."""
    import torch

    from qregress.produce.fingerprint import fingerprint

    cpu = fingerprint("cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = f", {format_bytes(cpu.device_bytes)}" if cpu.device_bytes else ""
    found = [Device("cpu", cpu.device_name)]
    facts = [Fact(name="cpu", state="ok", detail=f"{cpu.device_name}, {cores} cores{memory}")]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        print_of = fingerprint(f"cuda:{index}")
        major, minor = torch.cuda.get_device_capability(index)
        found.append(Device(print_of.device, print_of.device_name))
        detail = f"{print_of.device_name}, {format_bytes(print_of.device_bytes)}, compute capability {major}.{minor}"
        facts.append(Fact(name=print_of.device, state="ok", detail=f"{detail}, {_software()}"))
    if len(found) == 1:
        facts.append(_no_cuda(named=cuda_only))
    return found, tuple(facts)


def _software() -> str:
    import torch

    return f"driver {driver() or 'unknown'}, torch {torch.__version__} with CUDA {torch.version.cuda}"


def driver(file: Path = _DRIVER) -> str | None:
    """The NVIDIA driver's version, ``None`` where there is none or it is not said."""
    try:
        match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return match[1] if match is not None else None


def _no_cuda(*, named: bool) -> Fact:
    """Why torch sees no CUDA device, in its own words."""
    import torch

    built = torch.version.cuda
    if built is None:
        reason, how = f"torch {torch.__version__} is built without CUDA", _INSTALL_TORCH
    else:
        reason = f"torch {torch.__version__} (CUDA {built}): {_reason()}"
        how = "check the driver with nvidia-smi"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            reason, how = f"{reason}; CUDA_VISIBLE_DEVICES is '{hidden}'", "unset CUDA_VISIBLE_DEVICES, or " + how
    cost = "no cell runs here" if named else "cells for CUDA do not run here"
    return Fact(name="cuda", state=absence(named=named), detail=reason, cost=cost, how=how, named=named)


def _reason() -> str:
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return one_line(error, None).partition(". ")[0]
    return "sees none"

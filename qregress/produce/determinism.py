"""What makes a run repeatable."""

from __future__ import annotations

import os

import torch


def settle() -> None:
    """Pin what would let the same cell give other bits: thread count, autotuning, reduced-precision products."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(available_cores())
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def available_cores() -> int:
    """Cores that this process may run on, as a CPU set allows; a container's quota does not show here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

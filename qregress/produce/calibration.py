"""Scales of quantized activations, from calls of the pipeline itself."""

from __future__ import annotations

from collections.abc import Callable

from qregress.matrix import Setting, Workload
from qregress.quantize import BACKENDS, load_backend


def calibrated_prompts(setting: Setting, workload: Workload) -> int:
    """From how many prompts: zero where nothing is to be calibrated."""
    if not setting.activations or not BACKENDS[setting.backend].calibrates:
        return 0
    return min(setting.calibration, len(workload.prompts))


def calibrate(setting: Setting, workload: Workload, run: Callable[[range], object]) -> int:
    """Call the pipeline for the workload's first prompts, one at a time, with their own seeds; returns how many.

    ``run`` takes indices of prompts.
    """
    count = calibrated_prompts(setting, workload)
    if count:
        with load_backend(setting.backend).calibration():
            for index in range(count):
                run(range(index, index + 1))
    return count

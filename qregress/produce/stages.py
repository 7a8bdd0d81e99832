"""Where the time of a pipeline call goes: encoding prompts, denoising, decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline

from qregress.produce.variant import denoisers
from qregress.record import Stages
from qregress.stats import low_quantile


class Marks:
    """Points of time along one call; on CUDA events in the device's own queue, which make nobody wait.

    Complete once the device has been waited for. ``steps``: so many have been taken.
    """

    def __init__(self, device: str) -> None:
        self._on_device = device.startswith("cuda")
        self._start = self._now()
        self._denoise: torch.cuda.Event | float | None = None
        self._last: torch.cuda.Event | float | None = None
        self._end: torch.cuda.Event | float | None = None
        self.steps = 0

    def _now(self) -> torch.cuda.Event | float:
        if not self._on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # else traced with a compiled denoiser, and compiled anew
    def on_denoiser(self, *_: object) -> None:
        """The first call of a denoiser begins: what came before was text encoding."""
        if self._denoise is None:
            self._denoise = self._now()

    def on_step(self, done: int) -> None:
        """A step of the scheduler is over."""
        self.steps, self._last = done, self._now()

    def end(self) -> None:
        """The call has returned."""
        self._end = self._now()

    def stages(self) -> Stages | None:
        """Seconds of each, ``None`` where a pipeline called no denoiser or took no step with its scheduler."""
        if self._denoise is None or self._last is None or self._end is None:
            return None
        return Stages(
            encode_s=_between(self._start, self._denoise),
            step_s=_between(self._denoise, self._last) / self.steps,
            steps=self.steps,
            decode_s=_between(self._last, self._end),
        )


def _between(start: torch.cuda.Event | float, end: torch.cuda.Event | float) -> float:
    """Seconds; CUDA counts milliseconds."""
    if isinstance(start, float) or isinstance(end, float):
        return float(end) - float(start)  # type: ignore[arg-type]
    return float(start.elapsed_time(end)) / 1e3


@contextmanager
def watched(pipeline: DiffusionPipeline, device: str) -> Iterator[Marks]:
    """Mark one call of a pipeline; ``Marks.on_step`` is to be called after each step."""
    parts = [getattr(pipeline, name) for name in denoisers(pipeline)]
    marks = Marks(device)
    hooks = [part.register_forward_pre_hook(marks.on_denoiser) for part in parts]
    try:
        yield marks
        marks.end()
    finally:
        for hook in hooks:
            hook.remove()


def typical(calls: Sequence[Marks]) -> Stages | None:
    """The low quantile of each stage over several calls that are over; ``None`` where none can be told apart."""
    found = [stages for marks in calls if (stages := marks.stages()) is not None]
    if not found:
        return None

    def low(pick: Callable[[Stages], float]) -> float:
        return low_quantile([pick(stages) for stages in found])

    return Stages(
        encode_s=low(lambda stages: stages.encode_s),
        step_s=low(lambda stages: stages.step_s),
        steps=found[0].steps,
        decode_s=low(lambda stages: stages.decode_s),
    )

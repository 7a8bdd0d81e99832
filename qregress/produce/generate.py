"""One pipeline call: prompts and initial latents in; images, latents and the way there out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import torch
from diffusers import DiffusionPipeline

from qregress.errors import ProduceError
from qregress.matrix import Workload
from qregress.pipelines.families import FAMILIES, known_base
from qregress.pipelines.folder import Source
from qregress.record import CALL_ARGUMENTS

OnStep = Callable[[int], None]

_VIDEO = 5  # dimensions: prompt, frame, channel, height, width


class Generated(msgspec.Struct, frozen=True):
    """What one or more calls made for ``n`` prompts, on the CPU, first dimension: prompt, of images prompt and frame.

    ``images``: uint8 ``[n * frames, 3, height, width]``, the frames of a prompt's video one after the other.
    ``finite``: per image, whether it and its prompt's latents were finite before rounding. ``latents``: final ones, in
    their compute dtype, ``[n, ...]``. ``trajectory``: float32 ``[n, steps, ...]``. ``frames``: images of each prompt.
    """

    images: torch.Tensor
    finite: torch.Tensor
    latents: torch.Tensor
    trajectory: torch.Tensor
    frames: int = 1

    @property
    def videos(self) -> torch.Tensor:
        """The images prompt by prompt, uint8 ``[n, frames, 3, height, width]``."""
        return self.images.reshape(-1, self.frames, *self.images.shape[1:])

    def equals(self, other: Generated) -> bool:
        """Bit-equal images and latents; NaN equals NaN, as a repeated failure is a repetition."""
        return (
            self.frames == other.frames
            and torch.equal(self.images, other.images)
            and torch.equal(self.latents.nan_to_num(nan=1e4), other.latents.nan_to_num(nan=1e4))
        )

    def rows(self, batch: Sequence[int]) -> Generated:
        """Those of some prompts; of neighbours nothing is copied."""
        if isinstance(batch, range) and batch.step == 1:
            prompts: slice | list[int] = slice(batch.start, batch.stop)
            images: slice | list[int] = slice(batch.start * self.frames, batch.stop * self.frames)
        else:
            prompts = list(batch)
            images = [row * self.frames + frame for row in batch for frame in range(self.frames)]
        return Generated(
            self.images[images], self.finite[images], self.latents[prompts], self.trajectory[prompts], self.frames
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.images.nbytes + self.finite.nbytes + self.latents.nbytes + self.trajectory.nbytes


def join(parts: list[Generated]) -> Generated:
    """Several calls as one."""
    return Generated(
        images=torch.cat([part.images for part in parts]),
        finite=torch.cat([part.finite for part in parts]),
        latents=torch.cat([part.latents for part in parts]),
        trajectory=torch.cat([part.trajectory for part in parts]),
        frames=parts[0].frames,
    )


@contextmanager
def _observed(scheduler: Any, on_step: OnStep | None) -> Iterator[list[torch.Tensor]]:
    """Collect what ``scheduler.step`` returns: the one place that all diffusion pipelines pass at every step."""
    steps: list[torch.Tensor] = []
    original = scheduler.step

    @functools.wraps(original)  # pipelines look at the signature to see whether it takes a generator
    def step(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        sample = result[0] if isinstance(result, tuple) else result.prev_sample
        steps.append(sample.detach().clone())
        if on_step is not None:
            on_step(len(steps))
        return result

    scheduler.step = step
    try:
        yield steps
    finally:
        del scheduler.step


class _Enough(Exception):
    """A step has been taken after which the rest of a call is not needed."""


def call_until(pipeline: DiffusionPipeline, call: Callable[[OnStep], object], enough: Callable[[int], bool]) -> bool:
    """Call a pipeline and end the call after the first step, of those done so far, that is enough.

    ``call`` calls ``pipeline`` and takes what is to be called after every step. Whether it was ended early.
    """

    def on_step(done: int) -> None:
        if enough(done):
            raise _Enough

    try:
        call(on_step)
    except _Enough:
        pipeline.maybe_free_model_hooks()  # with offloading, what a call does at its end
        return True
    return False


class _FirstStep(Exception):
    """Carries the latents of a pipeline's first step."""

    def __init__(self, sample: torch.Tensor) -> None:
        super().__init__()
        self.sample = sample


def drawn_latents(pipeline: DiffusionPipeline, source: Source, workload: Workload, index: int) -> torch.Tensor:
    """The initial noise that a pipeline draws for one prompt, as its ``latents`` argument takes it, float32 on the CPU.

    For pipeline classes whose latents have a shape of their own (packed, or with frames): the pipeline is called up to
    its first step, and again with what it had drawn, as classes multiply what they are given by factors of their own.
    Raises ``ProduceError`` for one that takes no step with its scheduler, or does more to latents than that.
    """
    drawn = _first_sample(pipeline, source, workload, index, None)
    again = _first_sample(pipeline, source, workload, index, drawn)
    factor = float((again * drawn).sum() / drawn.square().sum()) if again.shape == drawn.shape else 0.0
    # Half-precision latents are rounded to 1 part in 1000.
    if factor == 0.0 or not torch.allclose(again, factor * drawn, rtol=0.01, atol=0.01 * float(again.std())):
        name = type(pipeline).__name__
        raise ProduceError(f"{name} changes latents that it is given: what it draws itself cannot be given to it again")
    return drawn / factor


def _first_sample(
    pipeline: DiffusionPipeline, source: Source, workload: Workload, index: int, latents: torch.Tensor | None
) -> torch.Tensor:
    """The latents at the first step of one prompt, float32 on the CPU."""
    scheduler = pipeline.scheduler
    original = scheduler.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        raise _FirstStep(kwargs["sample"] if "sample" in kwargs else args[2])

    scheduler.step = step
    try:
        pipeline(
            prompt=[workload.prompts[index]],
            generator=[torch.Generator().manual_seed(workload.seed + index)],
            latents=None if latents is None else latents.to(pipeline.device, pipeline.dtype),
            **call_arguments(source, workload),
        )
    except _FirstStep as first:
        return first.sample.float().cpu()
    finally:
        del scheduler.step
    raise ProduceError(f"{type(pipeline).__name__} takes no step of its scheduler: its initial noise cannot be told")


def call_arguments(source: Source, workload: Workload) -> dict[str, Any]:
    """Arguments of a pipeline call: what its source says it needs, overruled by the workload."""
    chosen = {name: getattr(workload, key) for key, name in CALL_ARGUMENTS.items()}
    return source.call | {name: value for name, value in chosen.items() if value is not None}


def generate(
    pipeline: DiffusionPipeline,
    source: Source,
    workload: Workload,
    batch: Sequence[int],
    latents: torch.Tensor,
    on_step: OnStep | None = None,
) -> Generated:
    """Call the pipeline for some prompts of a workload, given by their places in its list.

    ``latents``: float32 ``[prompts, ...]`` for the whole workload, on the CPU; they are rounded to the compute dtype
    and multiplied by the scheduler's initial sigma inside the pipeline, as random ones are. A pipeline may return
    images ``[n, 3, height, width]`` or videos ``[n, frames, 3, height, width]``, both in [0, 1].
    """
    device = pipeline.device
    # As many frames as the noise has: pipelines have a default of their own, whatever their denoiser was made for.
    known = FAMILIES.get(known_base(type(pipeline)))
    length = known.frames if known is not None else None
    arguments = call_arguments(source, workload) | ({length: latents.shape[2]} if length is not None else {})
    with _observed(pipeline.scheduler, on_step) as steps:
        output = pipeline(
            prompt=[workload.prompts[index] for index in batch],
            latents=latents[list(batch)].to(device, pipeline.dtype),
            generator=[torch.Generator().manual_seed(workload.seed + index) for index in batch],
            output_type="pt",
            **arguments,
        )
    images = output[0].float()
    frames = images.shape[1] if images.ndim == _VIDEO else 1
    images = images.flatten(0, 1) if images.ndim == _VIDEO else images
    final = steps[-1]
    finite = images.isfinite().flatten(1).all(1) & final.isfinite().flatten(1).all(1).repeat_interleave(frames)
    # Rounded where they are: the host would take longer than the device, within what is timed.
    return Generated(
        images=(images.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8).cpu(),
        finite=finite.cpu(),
        latents=final.cpu(),
        trajectory=torch.stack(steps, dim=1).float().cpu(),
        frames=frames,
    )

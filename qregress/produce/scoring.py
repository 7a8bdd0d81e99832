"""Images to scores, after measuring, where nothing that is timed or counted can be disturbed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

import torch
from msgspec import UNSET, UnsetType

from qregress.frames import for_each_image, of_image
from qregress.metrics.clip import Clip, load_clip
from qregress.metrics.latents import relative_l2, trajectory
from qregress.metrics.lpips import Lpips, load_lpips
from qregress.metrics.motion import motion
from qregress.metrics.pixels import psnr, ssim
from qregress.metrics.sanity import inspect
from qregress.metrics.weights import MetricError
from qregress.produce.generate import Generated
from qregress.record import Problem, Scores

_UNTRAINED = "quality not judged: random weights"
_VIDEO_LATENTS = 4  # dimensions of one prompt's: channel, frame, height, width

_lpips = lru_cache(maxsize=1)(load_lpips)
_clip = lru_cache(maxsize=1)(load_clip)


def load(*, lpips: str, clip: str) -> None:
    """Load the metrics' weights ahead; raises ``MetricError`` where that is not possible."""
    _lpips(lpips)
    _clip(clip)


def score(
    made: Generated, reference: Generated, prompts: Sequence[str], *, lpips: str, clip: str, trained: bool
) -> Scores:
    """All numbers of a cell's images against its reference's, prompt by prompt; of videos, frame by frame.

    Raises ``MetricError`` where weights cannot be loaded or sizes differ. Untrained weights have no quality: then
    only latents are compared, which must be finite as the images must, and the note says so.
    """
    latents = tuple(_finite(relative_l2(a, b)) for a, b in zip(made.latents, reference.latents, strict=True))
    along = _trajectory(made.trajectory, reference.trajectory)
    if not trained:
        return Scores(latents=latents, trajectory=along, problems=_not_finite(made), note=_UNTRAINED)
    a, b = _unit(made.images), _unit(reference.images)
    texts = for_each_image(prompts, made.frames)
    perceptual: Lpips = _lpips(lpips)
    language: Clip = _clip(clip)
    return Scores(
        lpips=_checked("LPIPS", perceptual.distance(a, b)),
        clip=_checked("CLIP", language.score(a, texts)),
        clip_reference=_checked("CLIP", language.score(b, texts)),
        psnr_db=tuple(psnr(a, b)),
        ssim=tuple(ssim(a, b)),
        latents=latents,
        trajectory=along,
        problems=_problems(made, reference),
        weights=(perceptual.weights, language.weights),
        motion=motions(made, reference),
    )


def score_reference(made: Generated, prompts: Sequence[str], *, clip: str, trained: bool) -> Scores:
    """The reference has no distance to itself: its CLIP score, and whether its images are images."""
    if not trained:
        return Scores(problems=_not_finite(made), note=_UNTRAINED)
    language: Clip = _clip(clip)
    return Scores(
        clip=_checked("CLIP", language.score(_unit(made.images), for_each_image(prompts, made.frames))),
        problems=_problems(made, None),
        weights=(language.weights,),
    )


def rescore(
    made: Generated, reference: Generated | None, prompts: Sequence[str], *, lpips: str, clip: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """LPIPS against the reference (empty for a reference) and CLIP score, image by image, and nothing else."""
    language: Clip = _clip(clip)
    scores = _checked("CLIP", language.score(_unit(made.images), for_each_image(prompts, made.frames)))
    if reference is None:
        return (), scores
    perceptual: Lpips = _lpips(lpips)
    return _checked("LPIPS", perceptual.distance(_unit(made.images), _unit(reference.images))), scores


def distance(made: Generated, reference: Generated, *, lpips: str, trained: bool) -> float:
    """Mean LPIPS to the reference's images; of untrained weights mean relative L2 of the final latents, if finite."""
    if trained:
        return fmean(_checked("LPIPS", _lpips(lpips).distance(_unit(made.images), _unit(reference.images))))
    return fmean(relative_l2(a, b) for a, b in zip(made.latents, reference.latents, strict=True))


def motions(made: Generated, reference: Generated) -> tuple[float, ...] | UnsetType:
    """How far each prompt's video moves from how its reference moves; ``UNSET`` for images."""
    if made.frames == 1:
        return UNSET
    pairs = zip(made.videos, reference.videos, strict=True)
    return tuple(motion(_unit(video), _unit(other)) for video, other in pairs)


def _checked(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Images of 8 bits have finite scores; what is not says that the metric is broken, not the image."""
    if not all(map(math.isfinite, values)):
        raise MetricError(f"{name}: a score is not finite; the metric's weights are damaged, install them again")
    return tuple(values)


def _unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 to float32 in [0, 1]."""
    return images.float() / 255


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _trajectory(made: torch.Tensor, reference: torch.Tensor) -> tuple[float | None, ...]:
    """Mean over prompts of the relative L2 at each step; empty where a scheduler took another number of steps."""
    if made.shape != reference.shape:
        return ()
    prompts = [trajectory(a, b) for a, b in zip(made, reference, strict=True)]
    return tuple(_finite(fmean(values)) for values in zip(*prompts, strict=True))


def problems_beyond(made: Generated, own: Generated, *, trained: bool) -> tuple[Problem, ...]:
    """What is wrong with images that is not wrong with others of the same prompts."""
    found, before = (_problems(made, own), _problems(own, None)) if trained else (_not_finite(made), _not_finite(own))
    known = {(problem.prompt, problem.frame) for problem in before}
    return tuple(problem for problem in found if (problem.prompt, problem.frame) not in known)


def _not_finite(made: Generated) -> tuple[Problem, ...]:
    """What is wrong whatever the weights: untrained ones may draw black, flat or noise."""
    return tuple(_nan(index, made.frames) for index, finite in enumerate(made.finite.tolist()) if not finite)


def _nan(index: int, frames: int) -> Problem:
    prompt, frame = of_image(index, frames)
    return Problem(prompt=prompt, kind="nan", detail="the image or its latents are not finite", frame=frame)


def _problems(made: Generated, reference: Generated | None) -> tuple[Problem, ...]:
    found = []
    for index, image in enumerate(_unit(made.images)):
        prompt, frame = of_image(index, made.frames)
        if not made.finite[index]:
            found.append(_nan(index, made.frames))
            continue
        other = _unit(reference.images[index]) if reference is not None else None
        seen = inspect(image, latents=_of_frame(made.latents[prompt], frame, made.frames), reference=other)
        found += [Problem(prompt=prompt, kind=problem.kind, detail=problem.detail, frame=frame) for problem in seen]
    return tuple(found)


def _of_frame(latents: torch.Tensor, frame: int | UnsetType, frames: int) -> torch.Tensor:
    """What a frame was decoded from, ``[channels, h, w]``, where a video's latents ``[channels, frames, h, w]`` tell.

    Autoencoders that compress time have fewer: then all of them.
    """
    tells = latents.ndim == _VIDEO_LATENTS and latents.shape[1] == frames
    return latents[:, frame] if isinstance(frame, int) and tells else latents

"""Images and videos to scores, with the metrics that ship."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec import UNSET

from qregress.metrics.clip import load_clip
from qregress.metrics.motion import motion
from qregress.produce import scoring
from qregress.produce.generate import Generated
from qregress.record import Problem, Scores
from training import render, scenes

METRICS: dict[str, Any] = {"lpips": "st-alex", "clip": "pocket"}
FRAMES = 2
PROMPTS = ("a small red circle on a plain white background", "a large blue square on a plain black background")


def drawn() -> torch.Tensor:
    """Four scenes, uint8 [4, 3, 128, 128]."""
    codes = scenes.sample(4, torch.Generator().manual_seed(7), held=None)
    return (render.render(codes, torch.Generator().manual_seed(7)) * 255).round().to(torch.uint8)


def videos(images: torch.Tensor, frames: int = FRAMES) -> Generated:
    """Four images as those of two videos, or of four prompts."""
    prompts = len(images) // frames
    shape = (prompts, 4, frames, 16, 16) if frames > 1 else (prompts, 4, 16, 16)
    smooth = torch.linspace(0, 1, 16).expand(shape).clone()  # as no noise is
    return Generated(images, torch.tensor([True] * len(images)), smooth, smooth[:, None], frames)


@pytest.fixture(scope="module")
def reference() -> Generated:
    """Two videos."""
    return videos(drawn())


@pytest.fixture(scope="module")
def scores(reference: Generated) -> Scores:
    """Of the reference with the last frame of the second video replaced by its first."""
    images = reference.images.clone()
    images[3] = images[2]
    return scoring.score(videos(images), reference, PROMPTS, trained=True, **METRICS)


def test_one_entry_for_each_frame_or_prompt(scores: Scores) -> None:
    """Given two videos, then scores of images have an entry for each frame, those of videos one for each prompt."""
    counts = {len(values) for values in (scores.lpips, scores.clip, scores.clip_reference, scores.psnr_db, scores.ssim)}
    assert counts == {2 * FRAMES}
    assert scores.motion
    assert (len(scores.latents), len(scores.motion)) == (2, 2)


def test_frames_are_held_against_their_own(scores: Scores) -> None:
    """Given one frame that is another, then it alone is away from its reference, and its video stands still."""
    assert [value > 0 for value in scores.lpips] == [False, False, False, True]
    assert scores.psnr_db[:3] == (None, None, None)
    assert scores.motion == (0.0, 1.0)


def test_each_frame_is_read_with_its_prompt(scores: Scores, reference: Generated) -> None:
    """Given two prompts, then every frame of a video has the CLIP score of its own one."""
    clip = load_clip("pocket")
    alone = [
        clip.score(reference.images[index][None].float() / 255, [PROMPTS[index // FRAMES]])[0] for index in range(4)
    ]
    assert scores.clip_reference == pytest.approx(alone)
    own = scoring.score_reference(reference, PROMPTS, clip="pocket", trained=True)
    assert own.clip == scores.clip_reference
    assert own.motion is UNSET


def test_motion_is_the_metrics(reference: Generated) -> None:
    """Given frames in another order, then the distance is the metric's, of each prompt's video."""
    swapped = videos(reference.images[[1, 0, 2, 3]])
    found = scoring.motions(swapped, reference)
    halves = [images.images[:2].float() / 255 for images in (swapped, reference)]
    assert found == (motion(*halves), 0.0)
    assert found[0] == pytest.approx(2.0)


def test_images_have_no_motion(reference: Generated) -> None:
    """Given the same images of four prompts, then there is no motion, and nothing else is different."""
    images = videos(reference.images, 1)
    found = scoring.score(images, images, PROMPTS * 2, trained=True, **METRICS)
    assert found.motion is UNSET
    assert len(found.lpips) == len(found.latents) == 4
    assert scoring.motions(images, images) is UNSET


def test_random_weights_have_no_motion(reference: Generated) -> None:
    """Given videos of random weights, then only latents are compared."""
    found = scoring.score(reference, reference, PROMPTS, trained=False, **METRICS)
    assert (found.motion, found.lpips, found.latents) == (UNSET, (), (0.0, 0.0))


def test_random_weights_may_draw_nothing_but_must_be_finite(reference: Generated) -> None:
    """Given a black frame and one that was not finite, of random weights, then it is only the latter that is wrong."""
    images, finite = torch.zeros_like(reference.images), reference.finite.clone()
    finite[2] = False
    made = Generated(images, finite, reference.latents, reference.trajectory, FRAMES)
    found = [
        scoring.score(made, reference, PROMPTS, trained=False, **METRICS).problems,
        scoring.score_reference(made, PROMPTS, clip="pocket", trained=False).problems,
        scoring.problems_beyond(made, reference, trained=False),
    ]
    assert [[(problem.prompt, problem.frame, problem.kind) for problem in some] for some in found] == [
        [(1, 0, "nan")]
    ] * 3


def test_what_is_no_image_is_named_with_its_frame(reference: Generated) -> None:
    """Given a black frame and one that was not finite, then both have their prompt and frame; of images, no frame."""
    images, finite = reference.images.clone(), reference.finite.clone()
    images[3], finite[0] = 0, False
    found = scoring.problems_beyond(
        Generated(images, finite, reference.latents, reference.trajectory, 2), reference, trained=True
    )
    assert [(problem.prompt, problem.frame, problem.kind) for problem in found] == [(0, 0, "nan"), (1, 1, "black")]
    single = videos(images, 1)
    (problem,) = scoring.problems_beyond(single, videos(reference.images, 1), trained=True)
    assert problem == Problem(prompt=3, kind="black", detail=problem.detail)


def test_a_problem_of_one_frame_excuses_no_other(reference: Generated) -> None:
    """Given a video whose first frame was black before, when the second is too, then that is new."""
    before, after = reference.images.clone(), reference.images.clone()
    before[2], after[2:] = 0, 0
    found = scoring.problems_beyond(videos(after), videos(before), trained=True)
    assert [(problem.prompt, problem.frame) for problem in found] == [(1, 1)]


def blotches(correlated: bool, frame: int) -> Generated:
    """Two videos whose second one's frame is unrelated blotches; its latents are noise, or neighbours are alike."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.nn.functional.interpolate(torch.rand(1, 3, 16, 16, generator=generator), scale_factor=8)
    images = drawn()
    images[FRAMES + frame] = (noise[0] * 255).round().to(torch.uint8)
    made = videos(images)
    made.latents[1] = torch.randn(4, FRAMES, 16, 16, generator=generator)
    if correlated:
        made.latents[1, :, frame] = torch.linspace(0, 1, 16).expand(4, 16, 16)
    return made


@pytest.mark.parametrize("frame", range(FRAMES))
def test_latents_of_its_own_frame_acquit(frame: int) -> None:
    """Given what looks as decoded noise does, then the latents of that frame tell whether it is, not another's."""
    guilty = scoring._problems(blotches(False, frame), None)
    assert [(problem.prompt, problem.frame, problem.kind) for problem in guilty] == [(1, frame, "noise")]
    assert scoring._problems(blotches(True, frame), None) == ()

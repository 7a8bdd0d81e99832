"""Does a video move as its reference does?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qregress.metrics import MetricError
from qregress.metrics.motion import FLOOR, motion


def video(frames: int = 4, speed: int = 3, size: int = 32) -> Tensor:
    """A bright square that moves to the right by ``speed`` px a frame."""
    made = torch.full((frames, 3, size, size), 0.2)
    for frame in range(frames):
        left = 4 + frame * speed
        made[frame, :, 10:20, left : left + 8] = 0.9
    return made


def test_the_same_motion() -> None:
    """Given the reference itself, then 0; so it is for one that is brighter in all frames: that is no motion."""
    assert motion(video(), video()) == 0.0
    assert motion(video() + 0.0625, video()) == pytest.approx(0.0, abs=1e-6)


def test_a_video_that_stands_still() -> None:
    """Given a frame of the reference in place of all of them, which LPIPS calls near, then exactly 1."""
    assert motion(video()[:1].expand(4, -1, -1, -1), video()) == 1.0
    assert motion(video()[1:2].expand(4, -1, -1, -1), video()) == 1.0


def test_other_motion_is_further_than_none() -> None:
    """Given a video played backwards, then it is further away than one that stands still."""
    assert motion(video().flip(0), video()) > 1.2


def test_it_follows_its_definition() -> None:
    """Given differences of 0.2 and 0.3 where the reference has 0.2 each, then |(0, 0.1)| / |(0.2, 0.2)|."""
    made, reference = (torch.zeros(3, 3, 2, 2) for _ in range(2))
    made[1], made[2] = 0.2, 0.5
    reference[1], reference[2] = 0.2, 0.4
    assert motion(made, reference) == pytest.approx(0.1 / math.hypot(0.2, 0.2), rel=1e-5)


def test_a_reference_that_stands_still() -> None:
    """Given a still reference, then motion is counted in half levels of 8 bits: nothing is divided by zero."""
    still = torch.full((2, 3, 8, 8), 0.5)
    moved = still.clone()
    moved[1] += 1 / 255
    assert motion(still, still) == 0.0
    assert motion(moved, still) == pytest.approx(2.0, rel=1e-4)


def test_rounding_is_below_the_floor() -> None:
    """Given a scene that stands still but for half a level of noise, then what rounding makes of it counts as still."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(1, 3, 64, 64, generator=generator) * 0.8 + 0.1
    rounded = (scene * 255 + torch.rand(6, 3, 64, 64, generator=generator) / 2).round() / 255
    spread = float(rounded.diff(dim=0).square().mean().sqrt())
    assert 0.7 * FLOOR < spread < FLOOR
    assert motion(rounded[:1].expand(6, -1, -1, -1), rounded) < 1.0


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (torch.zeros(3, 3, 32, 32), "motion: shapes differ"),
        (torch.zeros(4, 3, 32, 32).fill_(math.nan), "motion: the images hold NaN"),
        (torch.zeros(4, 3, 32, 32) - 0.1, "expected values in"),
        (torch.zeros(4, 3, 32, 32, dtype=torch.uint8), "expected float32"),
    ],
)
def test_what_is_no_pair_of_videos(made: Tensor, says: str) -> None:
    """Given another shape, NaN, values out of range or another dtype, then it is an error in one line."""
    with pytest.raises(MetricError, match=says):
        motion(made, video())


def test_one_frame_does_not_move() -> None:
    """Given one frame, then there is nothing to compare."""
    with pytest.raises(MetricError, match="needs at least 2 frames, found 1"):
        motion(video(1), video(1))

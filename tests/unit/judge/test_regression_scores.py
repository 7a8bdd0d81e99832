"""Scores against the accepted ones: of all prompts, of one, of frames."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qregress.judge.noise import FLOORS, margin, prompt_margin
from qregress.judge.regression import clip, latents, lpips, motion
from qregress.metrics import WeightsId
from qregress.record import Noise, Record
from tests.making import REFERENCE, make_acceptable, make_noise, make_scores
from tests.unit.judge.making import CHECKS, MISSING, accepted, scored, sure

#: As far beyond a limit as a comparison must still see.
JUST = 1e-9


@pytest.mark.parametrize(
    ("beyond", "expected"), [(-JUST, "pass"), (0.0, "pass"), (JUST, "fail")], ids=["within", "at", "beyond"]
)
@pytest.mark.parametrize("noise", [None, make_noise(0.0, 0.0), make_noise(0.001, 0.001)], ids=["no", "still", "some"])
def test_mean_at_its_limit(noise: Noise | None, beyond: float, expected: str) -> None:
    """Given all prompts moved alike, then the mean may lie at accepted plus margin, and not a hair beyond."""
    limit = 0.02 + margin("lpips", 0.02, noise, 2).value
    now = scored(lpips=(limit + beyond, limit + beyond))
    found = sure(lpips(now, accepted(scored(lpips=(0.02, 0.02)), noise)))
    assert (found.verdict, found.limit) == (expected, limit)
    assert f"{limit:.5f}" in found.why


@pytest.mark.parametrize(
    ("beyond", "expected"), [(-JUST, "pass"), (0.0, "pass"), (JUST, "fail")], ids=["within", "at", "beyond"]
)
@pytest.mark.parametrize("was", [0.1, 0.3, 0.7])
def test_prompt_at_its_limit(was: float, beyond: float, expected: str) -> None:
    """Given one prompt moved while another made up for it, then its own limit is what was said, to the last bit."""
    bound = was + prompt_margin("lpips", was, None)
    found = sure(lpips(scored(lpips=(bound + beyond, 0.0)), accepted(scored(lpips=(was, was)))))
    assert (found.verdict, found.worst_limit) == (expected, bound)


def test_one_prompt_far_beyond() -> None:
    """Given a mean as good as ever, when one prompt is much worse, then it fails and that prompt is named."""
    before = scored(lpips=(0.01, 0.03))
    found = sure(lpips(scored(lpips=(0.03, 0.01)), accepted(before)))
    assert found.verdict == "fail"
    assert (found.worst, found.worst_limit) == (0.03, 0.01 + 4 * FLOORS["lpips"].absolute)
    assert found.why == "0.03000, accepted 0.01000, over 0.01020 for prompt 'a small red circle'"


def test_prompts_are_compared_with_themselves() -> None:
    """Given a prompt that was always far away, then what another may do is not measured by it."""
    found = sure(lpips(scored(lpips=(0.0102, 0.5), clip=()), accepted(scored(lpips=(0.01, 0.5)))))
    assert (found.verdict, found.worst) == ("fail", 0.0102)


def test_better() -> None:
    """Given a mean below accepted minus margin, then it passes and says that it is better; at the edge it does not."""
    before = accepted(scored(lpips=(0.02, 0.02)))
    assert sure(lpips(scored(lpips=(0.0199, 0.0199)), before)).better
    assert not sure(lpips(scored(lpips=(0.02 - 0.00005, 0.02 - 0.00005)), before)).better
    mixed = sure(lpips(scored(lpips=(0.0, 0.03)), before))
    assert (mixed.verdict, mixed.better) == ("fail", False)


def test_another_number_of_prompts() -> None:
    """Given other counts of scored prompts, though the same were asked for, then it fails."""
    found = sure(lpips(scored(lpips=(0.02, 0.02)), accepted(scored(lpips=(0.02,)))))
    assert (found.verdict, found.why) == ("fail", "2 prompts were scored, 1 when it was accepted")


@pytest.mark.parametrize(("name", "place"), [("lpips", 0), ("clip", 1)])
def test_other_weights(name: str, place: int) -> None:
    """Given scores of another metric's weights, then they are new; the other metric's are compared as ever."""
    ids = [WeightsId("st-alex", "a" * 64), WeightsId("open_clip/pocket", "b" * 64)]
    before = scored(clip=(30.0, 30.0), clip_reference=(30.5, 30.5), weights=tuple(ids))
    ids[place] = WeightsId(ids[place].name, "c" * 64)
    now = scored(clip=(30.0, 30.0), clip_reference=(30.5, 30.5), weights=tuple(ids), lpips=(0.9, 0.9))
    found = {check: sure(CHECKS[check](now, accepted(before))) for check in ("lpips", "clip")}
    assert found.pop(name).verdict == "new"
    assert [check.verdict for check in found.values()] == ["pass" if name == "lpips" else "fail"]


def test_clip_is_paired() -> None:
    """Given a reference that fell as much as the cell, then the drop is the same; given one that did not, then not."""
    before = accepted(scored(clip=(30.0, 30.0), clip_reference=(31.0, 31.0)))
    assert sure(clip(scored(clip=(20.0, 20.0), clip_reference=(21.0, 21.0)), before)).verdict == "pass"
    found = sure(clip(scored(clip=(29.8, 29.8), clip_reference=(31.0, 31.0)), before))
    assert found.verdict == "fail"
    assert found.value == pytest.approx(0.012)


def test_clip_of_a_reference() -> None:
    """Given a reference, which has no pair, then its own score is compared."""
    before = accepted(make_acceptable(REFERENCE, scores=make_scores(lpips=(), clip=(95.0, 95.0))))
    for score, expected in ((95.0, "pass"), (94.91, "pass"), (94.8, "fail")):
        now = make_acceptable(REFERENCE, scores=make_scores(lpips=(), clip=(score, score)))
        assert sure(clip(now, before)).verdict == expected


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_latents_that_are_lost(lost: float | None) -> None:
    """Given a prompt whose latents are not finite any more, then it fails."""
    found = sure(latents(scored(latents=(0.1, lost)), accepted(scored(latents=(0.1, 0.1)))))
    assert found.verdict == "fail"
    assert "for prompt 'a large blue square'" in found.why


def test_nan_is_no_score() -> None:
    """Given NaN among the scores, then it fails: nothing is over a limit in a comparison with NaN."""
    assert sure(lpips(scored(lpips=(math.nan, 0.01)), accepted(scored(lpips=(0.01, 0.01))))).verdict == "fail"


@pytest.mark.parametrize(
    ("now", "expected"),
    [((None, 0.1), "pass"), ((0.1, 0.1), "pass"), ((None, 0.2), "fail"), ((None, None), "fail"), ((0.1, None), "fail")],
)
def test_a_prompt_that_was_never_finite(now: tuple[float | None, ...], expected: str) -> None:
    """Given a baseline with a prompt that was not finite, then the others are compared as if it were not there."""
    assert sure(latents(scored(latents=now), accepted(scored(latents=(None, 0.1))))).verdict == expected


def test_nothing_was_finite() -> None:
    """Given a baseline without one finite prompt, then there is nothing to compare with."""
    found = sure(latents(scored(latents=(0.1, 0.1)), accepted(scored(latents=(None, None)))))
    assert (found.verdict, found.why) == ("new", "what was accepted is not finite for any prompt")


def video(**scores: Any) -> Record:
    """Two prompts that give a video of three frames each."""
    return make_acceptable(scores=make_scores(**({"lpips": (0.02,) * 6} | scores)), frames=3)


def test_motion_against_the_accepted() -> None:
    """Given videos that moved as their references do, then standing still is a regression, and the prompt is named."""
    before = accepted(video(motion=(0.1, 0.1)))
    assert sure(motion(video(motion=(0.1, 0.102)), before)).verdict == "pass"
    found = sure(motion(video(motion=(0.1, 1.0)), before))
    assert found.verdict == "fail"
    assert found.why.endswith("1.00000, accepted 0.10000, over 0.10800 for prompt 'a large blue square'")


def test_motion_of_images() -> None:
    """Given images, then nothing is said of motion, with a baseline or without one."""
    assert motion(scored(), MISSING) is None
    assert motion(scored(), accepted(scored())) is None


def test_a_frame_far_beyond() -> None:
    """Given one frame that is worse while another made up for it, then it fails and that frame is named."""
    found = sure(lpips(video(lpips=(0.02,) * 4 + (0.03, 0.01)), accepted(video())))
    assert (found.verdict, found.worst) == ("fail", 0.03)
    assert found.why == "0.03000, accepted 0.02000, over 0.02020 for prompt 'a large blue square', frame 1"


def test_another_number_of_frames() -> None:
    """Given videos of another length than accepted, then frames were lost or added, and it fails."""
    found = sure(lpips(video(), accepted(scored(lpips=(0.02,) * 10))))
    assert (found.verdict, found.why) == ("fail", "6 frames were scored, 10 when it was accepted")


def test_frames_are_no_samples() -> None:
    """Given noise that scatters over frames, then a mean has as much of it as one over its prompts, not its frames."""
    noise = make_noise(*(0.001, -0.001) * 3)
    found = sure(lpips(video(), accepted(video(), noise)))
    assert found.limit == pytest.approx(0.02 + 3 * 0.001 / 2**0.5 + FLOORS["lpips"].absolute)
    six = make_acceptable(prompts=tuple("abcdef"), scores=make_scores(lpips=(0.02,) * 6))
    assert sure(lpips(six, accepted(six, noise))).limit == pytest.approx(
        0.02 + 3 * 0.001 / 6**0.5 + FLOORS["lpips"].absolute
    )

"""For which prompts a part is to be blamed, and how what was found is told."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from qregress.judge.blame import suspects, told
from qregress.judge.verdict import judge
from qregress.record import Blame, Check, Problem, Restored, Verdict
from tests.making import REFERENCE, make_check, make_record, make_scores

PROBLEM = Problem(prompt=1, kind="black", detail="mean 0")
CLIP: dict[str, Any] = {"clip": (30.0, 20.0, 30.0), "clip_reference": (30.0, 30.0, 31.0)}


def suspected(*checks: Check, reference: dict[str, Any] | None = None, **scores: Any) -> tuple[int, ...]:
    """Of a cell with three prompts and these checks."""
    record = make_record(prompts=("one", "two", "three"), scores=make_scores(**scores))
    base = make_record(REFERENCE, prompts=record.prompts, scores=make_scores(lpips=(), **(reference or {})))
    result = judge(record, base, {})
    return suspects(record, base, type(result)(**{name: getattr(result, name) for name in KEPT}, checks=checks))


KEPT = ("id", "pipeline", "setting", "workload", "status", "verdict")


@pytest.mark.parametrize("name", ["quality.lpips", "regression.lpips"])
def test_the_worst_prompts_by_the_score_that_failed(name: str) -> None:
    """Given a failed check of LPIPS, then the two prompts that are furthest away, the worst first."""
    assert suspected(make_check("fail", name), lpips=(0.1, 0.3, 0.2)) == (1, 2)


def test_clip_ranks_by_its_drop() -> None:
    """Given a failed check of CLIP alone, then the prompts that lost most, not those that score least."""
    assert suspected(make_check("fail", "regression.clip"), lpips=(0.3, 0.1, 0.2), **CLIP) == (1, 2)


def test_what_is_not_finite_is_worst() -> None:
    """Given latents that are not finite, then their prompt comes first."""
    assert suspected(make_check("fail", "quality.latents"), lpips=(), latents=(0.5, None, 0.6)) == (1, 2)


def test_images_that_are_none() -> None:
    """Given only the sanity check failed, then the prompts that it names come first."""
    assert suspected(make_check("fail", "quality.sanity"), problems=(PROBLEM,)) == (1, 0)


def test_a_reference_that_is_no_image_blames_nothing() -> None:
    """Given a broken reference, then there is no distance to it that a part could carry."""
    checks = make_check("fail", "quality.sanity"), make_check("fail", "quality.lpips")
    assert suspected(*checks, reference={"problems": (PROBLEM,)}, lpips=(0.1, 0.3, 0.2)) == ()


@pytest.mark.parametrize(
    ("verdict", "name"),
    [("waived", "quality.lpips"), ("pass", "quality.lpips"), ("void", "quality.lpips"), ("fail", "memory.static")],
)
def test_what_is_no_loss(verdict: Verdict, name: str) -> None:
    """Given that no check of the quality failed, or a waiver says that it does, then nothing is asked for."""
    assert suspected(make_check(verdict, name), lpips=(0.1, 0.3, 0.2)) == ()


def test_of_videos_the_worst_frame_counts() -> None:
    """Given two frames of each prompt, then a prompt is as bad as its worst frame."""
    record = make_record(frames=2, scores=make_scores(lpips=(0.2, 0.2, 0.0, 0.3)))
    base = make_record(REFERENCE, scores=make_scores(lpips=()))
    result = judge(record, base, {})
    failed = type(result)(**{name: getattr(result, name) for name in KEPT}, checks=(make_check("fail"),))
    assert suspects(record, base, failed) == (1, 0)


def test_a_reference_has_no_parts_to_blame() -> None:
    """Given a reference that failed, then nothing is asked for: none of it is quantized."""
    record = make_record(REFERENCE, scores=make_scores(lpips=(), problems=(PROBLEM,)))
    assert suspects(record, None, judge(record, None, {})) == ()


def parts(**distances: float | None) -> tuple[Restored, ...]:
    """What is left with each."""
    return tuple(Restored(name=name, distance=left) for name, left in distances.items())


def found(**fields: Any) -> Blame:
    """Blame of a loss of 0.03."""
    given: dict[str, Any] = {"score": "lpips", "prompts": (1, 0), "distance": 0.03}
    return Blame(**(given | fields))


TRANSFORMER: dict[str, Any] = {"components": parts(transformer=0.0009), "component": "transformer"}


@pytest.mark.parametrize(
    ("blame", "text"),
    [
        (
            found(**TRANSFORMER, blocks=parts(b4=0.0027, b1=0.029)),
            "transformer carries 97% of LPIPS 0.03 (0.0009 with it unquantized); of transformer, b4 with 91%",
        ),
        (
            found(components=parts(transformer=0.003, text_encoder=0.024, vae=0.031), component="transformer"),
            "transformer carries 90% of LPIPS 0.03 (0.003 with it unquantized), text_encoder carries 20%",
        ),
        (
            found(**TRANSFORMER, blocks=parts(b4=0.0246, b1=0.0264, b2=0.029)),
            (
                "transformer carries 97% of LPIPS 0.03 (0.0009 with it unquantized); "
                "no single block of transformer does: the largest are b4 with 18%, b1 with 12%"
            ),
        ),
        (
            found(**TRANSFORMER, runs=(*parts(one=0.003), *parts(two=0.012)), blocks=parts(b4=0.009, b1=0.029)),
            (
                "transformer carries 97% of LPIPS 0.03 (0.0009 with it unquantized); "
                "of transformer, b4 with 70%, two with 60%"
            ),
        ),
        (
            found(**TRANSFORMER, runs=parts(one=0.021, two=0.024), blocks=parts(b4=0.027)),
            (
                "transformer carries 97% of LPIPS 0.03 (0.0009 with it unquantized); "
                "no single block of transformer does: of runs of blocks one with 30%, two with 20%; "
                "of the first, the largest are b4 with 10%"
            ),
        ),
        (
            found(**TRANSFORMER, blocks=parts(b4=0.033)),
            (
                "transformer carries 97% of LPIPS 0.03 (0.0009 with it unquantized); "
                "no single block of transformer does: none unquantized alone makes it less"
            ),
        ),
        (
            found(components=parts(transformer=0.033)),
            "no quantized component carries LPIPS 0.03: with transformer unquantized it is 0.033",
        ),
        (
            found(score="latents", distance=None, **TRANSFORMER, blocks=parts(b4=0.1, b1=None)),
            (
                "transformer carries 100% of the latents' relative L2, which is not finite "
                "(0.0009 with it unquantized); of transformer, b4 with 100%"
            ),
        ),
        (
            found(score="latents", distance=None, components=parts(transformer=None)),
            (
                "no quantized component carries the latents' relative L2, which is not finite: "
                "with transformer unquantized it is not finite"
            ),
        ),
    ],
)
def test_told(blame: Blame, text: str) -> None:
    """Given what was found, then one sentence says who carries how much, and where no one does."""
    assert told(blame) == f"blame: {text}"


def test_shares() -> None:
    """Given a loss, then a part's share is what is gone with it: less than nothing where that makes it worse."""
    shares = [found().share(part) for part in parts(a=0.0, b=0.015, c=0.06, d=None)]
    assert shares == [1.0, 0.5, -1.0, float("-inf")]
    assert found(distance=0.0).share(Restored(name="a", distance=0.0)) == 0.0


def test_a_finished_run_that_is_judged_again_says_it_again() -> None:
    """Given a record with what carries its loss, then its verdict's notes have it; given none, they have none."""
    blame = found(**TRANSFORMER)
    assert told(blame) in judge(make_record(blame=blame), None, {}).notes
    assert judge(make_record(blame=UNSET), None, {}).notes == ()

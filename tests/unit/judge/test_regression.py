"""Each check against the accepted record: pass, fail, new, void, better, and what it says."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from qregress.judge import regression
from qregress.judge.noise import FLOORS, NOISY, K, margin, prompt_margin
from qregress.judge.regression import History, clip, coverage, drift, latency, latents, lpips, memory, motion
from qregress.judge.verdict import judge
from qregress.metrics import WeightsId
from qregress.record import Check, Coverage, ModuleCoverage, Noise, Record, Timing
from qregress.stats import Ratio, ratio
from qregress.store.accept import as_accepted
from tests.making import (
    REFERENCE,
    make_acceptable,
    make_fingerprint,
    make_memory,
    make_noise,
    make_record,
    make_scores,
    make_timing,
)

MISSING = History(None, "no baselines in baselines/")
CHECKS = {
    "lpips": lpips,
    "clip": clip,
    "latents": latents,
    "motion": motion,
    "memory": memory,
    "latency": latency,
    "coverage": coverage,
}
FIGURES = ("scores", "memory", "timing", "coverage")
#: As far beyond a limit as a comparison must still see.
JUST = 1e-9


def accepted(record: Record, noise: Noise | None = None, **history: Any) -> History:
    """As if the record had been accepted, with that noise floor."""
    kept = make_acceptable(record.id, noise=noise, **{f: getattr(record, f) for f in FIGURES})
    return History(as_accepted(kept, judge(kept, None, {})), **history)


def scored(**scores: Any) -> Record:
    """A record of int8 with these scores."""
    return make_acceptable(scores=make_scores(**scores))


def manifest(*modules: tuple[str, str | None], component: str = "transformer") -> dict[str, Coverage]:
    """Of one component: the tensor class of each module, and what it is quantized to."""
    made = tuple(
        ModuleCoverage(
            name=f"blocks.{at}", module="Linear", expected="int8", found=found, tensor=kind, dtype="float16", bytes=64
        )
        for at, (kind, found) in enumerate(modules)
    )
    return {component: Coverage(modules=made, asked="int8")}


SCORES: dict[str, Any] = {"clip": (30.0, 30.0), "latents": (0.1, 0.1), "motion": (0.2, 0.2)}
INT8_CLASS, MARLIN = ("WeightQBytesTensor", "int8"), ("MarlinInt8Tensor", "int8")


def full(**fields: Any) -> Record:
    """A record with every figure that is compared."""
    given: dict[str, Any] = {
        "scores": make_scores(**SCORES),
        "memory": make_memory(10),
        "timing": make_timing(1.0, 1.0),
        "coverage": manifest(INT8_CLASS, INT8_CLASS),
    }
    return make_acceptable(**(given | fields))


def sure(check: Check | None) -> Check:
    """A check that was made."""
    assert check is not None
    return check


@pytest.mark.parametrize("name", CHECKS)
def test_new(name: str) -> None:
    """Given no baseline, then each comparison is new, and says why there is nothing to compare with."""
    found = sure(CHECKS[name](full(), MISSING))
    assert (found.name, found.verdict, found.why) == (f"regression.{name}", "new", "no baselines in baselines/")


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_measured_nothing_said(name: str) -> None:
    """Given a record without the figure, then there is no check of it, without a baseline or with one that has none."""
    assert CHECKS[name](make_record(), MISSING) is None
    assert CHECKS[name](make_record(), accepted(make_acceptable())) is None


@pytest.mark.parametrize("name", CHECKS)
def test_a_figure_that_is_gone(name: str) -> None:
    """Given a baseline that has the figure, when the record has none of it, then that is a failure and says so."""
    before = accepted(full())
    assert sure(CHECKS[name](full(), before)).verdict == "pass"
    found = sure(CHECKS[name](make_record(), before))
    assert (found.name, found.verdict) == (f"regression.{name}", "fail")
    assert found.why == "was measured when it was accepted, and is not now; if that is meant, accept this run"


@pytest.mark.parametrize("name", ["lpips", "clip", "latents", "motion"])
def test_one_score_that_is_gone(name: str) -> None:
    """Given scores of which one kind is missing now, then that one fails, and the others are compared as ever."""
    now = full(scores=msgspec.structs.replace(make_scores(**SCORES), **{name: ()}))
    names = ("lpips", "clip", "latents", "motion")
    assert {n: sure(CHECKS[n](now, accepted(full()))).verdict for n in names} == {
        n: "fail" if n == name else "pass" for n in names
    }


def test_pairs_that_are_gone() -> None:
    """Given seconds without a reference's beside them, then the ratio is gone, unless there was none when accepted."""
    alone = make_acceptable(timing=Timing(samples_s=(1.0,) * 8))
    assert sure(latency(alone, accepted(timed(1.0)))).verdict == "fail"
    assert latency(alone, accepted(alone)) is None


@pytest.mark.parametrize("name", CHECKS)
def test_a_figure_that_was_not_accepted(name: str) -> None:
    """Given a baseline without the figure that is measured now, then it is new, not passed."""
    found = sure(CHECKS[name](full(), accepted(make_acceptable())))
    assert (found.verdict, found.why) == ("new", "the accepted record has no such figure")


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


@pytest.mark.parametrize(
    ("static", "expected", "better"),
    [
        (1_000_000 + 64 * 1024, "pass", False),
        (1_000_000 + 64 * 1024 + 1, "fail", False),
        (1_000_000 - 64 * 1024, "pass", False),
        (1_000_000 - 64 * 1024 - 1, "pass", True),
    ],
)
def test_memory(static: int, expected: str, better: bool) -> None:
    """Given bytes at the margin's edges, then a byte decides, to both sides."""
    before = accepted(make_acceptable(memory=make_memory(1_000_000)))
    found = sure(memory(make_record(memory=make_memory(static, peak=1_000_000)), before))
    assert (found.verdict, found.better) == (expected, better)


def test_peak() -> None:
    """Given a peak beyond its own limit, then it fails with that figure, and fewer static bytes excuse nothing."""
    before = accepted(make_acceptable(memory=make_memory(1_000_000, peak=2_000_000)))
    found = sure(memory(make_record(memory=make_memory(10, peak=2_000_000 + 64 * 1024 + 1)), before))
    assert (found.verdict, found.better) == ("fail", False)
    assert found.why == "peak 1.970 MiB, accepted 1.907 MiB, limit 1.970 MiB"


def timed(seconds: float, pairs: int = 8, **where: Any) -> Record:
    """A record with pairs without noise, the reference at one second."""
    return make_acceptable(timing=make_timing(seconds, 1.0, pairs), fingerprint=make_fingerprint(**where))


@pytest.mark.parametrize(
    ("seconds", "expected", "better"),
    [(1.0, "pass", False), (1.15, "pass", False), (1.16, "fail", False), (0.86, "pass", False), (0.84, "pass", True)],
)
def test_latency(seconds: float, expected: str, better: bool) -> None:
    """Given pairs without noise, then a ratio may be 15 % above the accepted one."""
    found = sure(latency(timed(seconds), accepted(timed(1.0))))
    assert (found.verdict, found.better) == (expected, better)


def test_latency_limit_is_the_products() -> None:
    """Given accepted pairs with noise, then half their interval is added, as a sampler was told."""
    before = make_acceptable(timing=Timing(samples_s=(1.0, 1.2) * 4, reference_s=(1.0,) * 8))
    was = ratio((1.0, 1.2) * 4, (1.0,) * 8)
    assert was is not None
    found = sure(latency(timed(1.0), accepted(before)))
    assert found.limit == pytest.approx(was.value * 1.15 + (was.high - was.low) / 2)


@pytest.mark.parametrize("where", [{"name": "another CPU"}, {"threads": 16}])
def test_latency_elsewhere(where: dict[str, Any]) -> None:
    """Given another CPU of the class, or other threads, then even a slow ratio is void, and both are named."""
    found = sure(latency(timed(9.0, **where), accepted(timed(1.0))))
    assert (found.verdict, found.value) == ("void", 9.0)
    assert found.why.startswith("accepted on a CPU with 2 threads, this is ")


def test_latency_too_noisy() -> None:
    """Given pairs that lie on both sides of the limit, then it is void with interval and limit."""
    now = make_acceptable(timing=Timing(samples_s=(1.0, 2.0) * 4, reference_s=(1.0,) * 8))
    found = sure(latency(now, accepted(timed(1.0))))
    assert found.verdict == "void"
    assert found.limit == pytest.approx(1.15)
    assert found.why.startswith("too noisy: ")


@pytest.mark.parametrize(("now", "before", "when"), [(5, 8, "now"), (8, 5, "when it was accepted"), (5, 5, "now")])
def test_latency_with_few_pairs(now: int, before: int, when: str) -> None:
    """Given fewer than six pairs on either side, then it is void, and says on which."""
    found = sure(latency(timed(9.0, now), accepted(timed(1.0, before))))
    assert (found.verdict, found.why) == ("void", f"fewer than 6 interleaved pairs {when}")


@pytest.mark.parametrize(("spread", "expected"), [(0.9, "void"), (0.1, "pass")])
def test_latency_against_a_noisy_ratio(spread: float, expected: str) -> None:
    """Given an accepted ratio whose interval is wider than half of it, then it limits nothing, and its width is said.

    A quarter to each side would let everything pass: half its interval is added to the limit.
    """
    before = make_acceptable(timing=Timing(samples_s=(1.0, 1.0 + spread) * 4, reference_s=(1.0,) * 8))
    was = ratio((1.0, 1.0 + spread) * 4, (1.0,) * 8)
    assert was is not None
    assert (was.high - was.low > 2 * NOISY * was.value) == (expected == "void")
    found = sure(latency(timed(1.0), accepted(before)))
    assert (found.verdict, found.value) == (expected, 1.0)
    if expected == "void":
        told = f"{was.value:.3f}x, interval {was.low:.3f} to {was.high:.3f}"
        assert found.why == f"the accepted ratio is too noisy: {told}; accept a calmer run"
        assert found.limit is None


@pytest.mark.parametrize("half", [0.25, 0.2501])
def test_noisy_is_a_quarter_to_each_side(half: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an accepted interval of a quarter to each side, then it still limits; a hair wider does not."""
    found = {1.0: Ratio(1.0, 1.0, 1.0), 2.0: Ratio(1.0, 1.0 - half, 1.0 + half)}
    monkeypatch.setattr(regression, "ratio", lambda mine, _: found[mine[0]])
    verdict = sure(latency(timed(1.0), accepted(timed(2.0)))).verdict
    assert verdict == ("pass" if half == NOISY else "void")


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ([INT8_CLASS, INT8_CLASS], []),
        ([INT8_CLASS, MARLIN], ["tensors were {'WeightQBytesTensor': 2} and are {'WeightQBytesTensor': 1, 'Marl"]),
        ([INT8_CLASS, ("Parameter", None)], ["quantized were 2 and are 1", "tensors were {'WeightQBytesTensor': 2} a"]),
        ([INT8_CLASS], ["quantized were 2 and are 1", "eligible were 2 and are 1", "modules were 2 and are 1", "tens"]),
    ],
    ids=["same", "kernel", "fewer quantized", "fewer modules"],
)
def test_coverage_by_counts(now: list[tuple[str, str | None]], says: list[str]) -> None:
    """Given a baseline from before manifests had lines, then another tensor class or count fails, each in words."""
    known = accepted(full())
    assert known.entry is not None
    old = msgspec.structs.replace(known.entry.baseline, manifest=UNSET)
    before = History(msgspec.structs.replace(known.entry, baseline=old))
    found = sure(coverage(full(coverage=manifest(*now)), before))
    assert found.verdict == ("fail" if says else "pass")
    assert (found.value, found.limit, found.basis) == (float(len(says)), 0.0, "the accepted manifest")
    words = found.why.split("; ")
    if not says:
        assert words == ["modules and tensor classes as accepted"]
        return
    assert len(words) == len(says)
    assert all(word.startswith(f"transformer: {text}") for word, text in zip(words, says, strict=True))


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ([INT8_CLASS, INT8_CLASS], []),
        ([INT8_CLASS, MARLIN], ["int8, WeightQBytesTensor, float16 -> int8, MarlinInt8Tensor, float16: blocks.1"]),
        (
            [INT8_CLASS, ("Parameter", None)],
            ["int8, WeightQBytesTensor, float16 -> unquantized, Parameter, float16: b"],
        ),
        ([INT8_CLASS], ["int8, WeightQBytesTensor, float16 -> gone: blocks.1"]),
        ([INT8_CLASS] * 3, ["not there -> int8, WeightQBytesTensor, float16: blocks.2"]),
        ([MARLIN] * 2, ["int8, WeightQBytesTensor, float16 -> int8, MarlinInt8Tensor, float16: blocks.0, blocks.1"]),
    ],
    ids=["same", "kernel", "not quantized", "gone", "new", "two alike"],
)
def test_coverage(now: list[tuple[str, str | None]], says: list[str]) -> None:
    """Given a manifest, then each change of a module fails, as in a lock file, those that are alike in one sentence."""
    found = sure(coverage(full(coverage=manifest(*now)), accepted(full())))
    assert found.verdict == ("fail" if says else "pass")
    words = found.why.split("; ") if says else []
    assert len(words) == len(says)
    assert all(word.startswith(f"transformer: {text}") for word, text in zip(words, says, strict=True))


def test_coverage_of_other_bytes() -> None:
    """Given the same modules with other bytes, then that is no change of the manifest: memory has its own limit."""
    (name, part), *_ = manifest(INT8_CLASS).items()
    heavier = Coverage(modules=tuple(msgspec.structs.replace(m, bytes=9999) for m in part.modules), asked=part.asked)
    before = accepted(full(coverage={name: part}))
    assert sure(coverage(full(coverage={name: heavier}), before)).verdict == "pass"


def test_coverage_of_a_component_that_is_gone() -> None:
    """Given two components of which one is in no manifest any more, then it fails and that one is named, no other."""
    both = manifest(INT8_CLASS) | manifest(INT8_CLASS, component="text_encoder")
    before = accepted(full(coverage=both))
    assert sure(coverage(full(coverage=both), before)).verdict == "pass"
    found = sure(coverage(full(coverage=manifest(INT8_CLASS)), before))
    assert found.verdict == "fail"
    assert found.why == "text_encoder: int8, WeightQBytesTensor, float16 -> gone: blocks.0"
    assert "transformer" not in found.why
    assert sure(coverage(full(coverage=both), accepted(full(coverage=manifest(INT8_CLASS))))).verdict == "fail"


def test_a_reference_has_no_coverage() -> None:
    """Given a reference, whose weights nobody quantizes, then nothing is said of a manifest, accepted or not."""
    assert coverage(reference(), accepted(reference())) is None
    assert coverage(reference(), MISSING) is None


def reference(images: str = "1", **fields: Any) -> Record:
    """A reference with two images of that digest."""
    given: dict[str, Any] = {"images": ("images/00.png", "images/01.png"), "images_sha256": images * 64}
    return make_acceptable(REFERENCE, **(given | fields))


def test_drift_equal_bits() -> None:
    """Given the accepted images to the bit, then it passes, and no image is opened."""

    def never() -> tuple[float, ...]:
        raise AssertionError

    found = sure(drift(reference(), accepted(reference(), moved=never)))
    assert (found.verdict, found.value, found.why) == ("pass", 0.0, "the accepted images, bit by bit")


@pytest.mark.parametrize(
    ("moved", "noise", "expected"),
    [
        ((0.5, 0.5), None, "pass"),
        ((0.51, 0.51), None, "fail"),
        ((0.0, 1.0), None, "pass"),
        ((0.0, 2.01), None, "fail"),
        ((2.0, 2.0), make_noise(0.5, 0.5, score="pixels"), "pass"),
        ((2.01, 2.01), make_noise(0.5, 0.5, score="pixels"), "fail"),
        ((255.0, 255.0), make_noise(0.5, 0.5, score="pixels"), "fail"),
    ],
)
def test_drift_of_images(moved: tuple[float, ...], noise: Noise | None, expected: str) -> None:
    """Given images that moved, then half a level in the mean and k times the noise are allowed, four floors in one."""
    found = sure(drift(reference("9"), accepted(reference(), noise, moved=lambda: moved)))
    assert found.verdict == expected
    assert f"moved by {sum(moved) / 2:.2f} levels of 8 bits in the mean and {max(moved):.2f} in the worst" in found.why


def test_drift_with_digests_only() -> None:
    """Given a store without images, then other bits are void; whether the latents are the same is said."""
    found = sure(drift(reference("9"), accepted(reference())))
    assert found.verdict == "void"
    assert found.why.startswith("its latents are the accepted ones, its images are not, and only digests are kept")
    found = sure(drift(reference("9", latents_sha256="8" * 64), accepted(reference())))
    assert found.why.startswith("its latents and images are others")


def test_drift_without_digests() -> None:
    """Given records without digests of images, then nothing is taken for equal."""
    unknown = reference(images_sha256=None)
    entry = as_accepted(unknown, judge(unknown, None, {}))
    assert sure(drift(unknown, History(entry))).verdict == "void"


def test_drift_new() -> None:
    """Given no baseline, then it is new; of a cell that is no reference there is no such check."""
    assert sure(drift(reference(), MISSING)).verdict == "new"
    names = [check.name for check in judge(scored(), None, {}, history=MISSING).checks]
    assert names == ["quality.sanity", "regression.lpips"]
    assert "drift.reference" in [check.name for check in judge(reference(), None, {}, history=MISSING).checks]


def test_k_is_in_the_basis() -> None:
    """Given a noise, then the basis holds accepted value, k, noise and floor, as DESIGN promises."""
    found = sure(lpips(scored(lpips=(0.02, 0.02)), accepted(scored(lpips=(0.02, 0.02)), make_noise(0.0001, 0.0001))))
    assert found.basis == f"accepted 0.02 + {K:g} x 0.0001 + 5e-05"


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


def test_drift_of_videos() -> None:
    """Given a reference's frames that moved, then mean and worst frame are limited, with the noise of its prompts."""
    noise = make_noise(*(0.5, -0.5) * 3, score="pixels")
    was, now = (reference(digit, frames=3) for digit in "19")
    found = sure(drift(now, accepted(was, noise, moved=lambda: (0.1,) * 5 + (9.0,))))
    assert (found.verdict, found.worst) == ("fail", 9.0)
    assert found.value == pytest.approx(9.5 / 6)
    assert found.limit == pytest.approx(3 * 0.5 / 2**0.5 + 0.5)

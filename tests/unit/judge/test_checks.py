"""Each check: what passes, what fails, what it says."""

from __future__ import annotations

import math

import pytest

from qregress.judge.budgets import WORST_FACTOR, Limits
from qregress.judge.checks import Subject, run
from qregress.metrics import WeightsId
from qregress.record import Check, Coverage, ModuleCoverage, Problem, Record, Roundtrip, Scores, Timing
from tests.making import REFERENCE, make_fingerprint, make_memory, make_record, make_scores, make_timing


def check(name: str, record: Record, reference: Record | None = None, **limits: object) -> Check | None:
    """The check of that name, ``None`` where it has nothing to say."""
    subject = Subject(record, reference, Limits.parse(limits).limits)
    return next((found for found in run(subject) if found.name == name), None)


def verdict(name: str, record: Record, reference: Record | None = None, **limits: object) -> str | None:
    """Its verdict."""
    found = check(name, record, reference, **limits)
    return found.verdict if found is not None else None


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.05, 0.05), "pass"), ((0.0, 0.11), "fail"), ((0.06, 0.05), "fail"), ((0.01, math.nan), "fail")],
)
def test_lpips_mean(values: tuple[float, ...], expected: str) -> None:
    """Given a limit, then the mean passes up to it, and NaN never does."""
    assert verdict("quality.lpips", make_record(scores=make_scores(lpips=values)), lpips=0.05) == expected


def test_lpips_worst() -> None:
    """Given a mean within its limit, when one prompt is far beyond, then it fails and that prompt is named."""
    record = make_record(scores=make_scores(lpips=(0.0, 0.09)))
    assert verdict("quality.lpips", record, lpips=0.05) == "pass"
    found = check("quality.lpips", record, lpips=0.05, lpips_worst=0.08)
    assert found is not None
    assert (found.verdict, found.value, found.worst, found.worst_limit) == ("fail", 0.045, 0.09, 0.08)
    assert found.why == "worst LPIPS 0.0900 over 0.08 (budget), prompt 'a large blue square'"


def test_worst_has_a_limit_of_its_own() -> None:
    """Given a limit of the mean alone, then the worst prompt may be some times as far and no further."""
    scores = make_scores(lpips=(0.0,) * 9 + (0.011 * WORST_FACTOR,))
    assert verdict("quality.lpips", make_record(scores=scores), lpips=0.011) == "pass"
    scores = make_scores(lpips=(0.0,) * 9 + (0.0111 * WORST_FACTOR,))
    assert verdict("quality.lpips", make_record(scores=scores), lpips=0.011) == "fail"


def test_clip_drop_is_paired() -> None:
    """Given CLIP scores of both images of each prompt, then their mean difference is limited, as a cosine."""
    record = make_record(scores=make_scores(clip=(30.0, 20.0), clip_reference=(31.0, 22.0)))
    found = check("quality.clip_drop", record, clip_drop=0.01)
    assert found is not None
    assert found.verdict == "fail"
    assert (found.value, found.worst) == pytest.approx((0.015, 0.02))
    assert verdict("quality.clip_drop", record, clip_drop=0.02) == "pass"


def test_latents_that_are_not_finite_are_beyond_every_limit() -> None:
    """Given a prompt whose latents have no distance, then the check fails."""
    record = make_record(scores=make_scores(latents=(0.1, None)))
    assert verdict("quality.latents", record, latents=1000.0) == "fail"
    assert verdict("quality.latents", make_record(scores=make_scores(latents=(0.1, 0.1))), latents=0.1) == "pass"


def test_sanity_needs_no_budget() -> None:
    """Given a black image, then sanity fails, whatever the scores say, and names the prompt."""
    problem = Problem(prompt=1, kind="black", detail="mean 0.0")
    found = check("quality.sanity", make_record(scores=make_scores(lpips=(0.0, 0.0), problems=(problem,))))
    assert found is not None
    assert (found.verdict, found.value, found.why) == ("fail", 1.0, "prompt 1: black, mean 0.0")
    assert verdict("quality.sanity", make_record(scores=make_scores())) == "pass"


def test_sanity_of_random_weights_is_that_they_are_finite() -> None:
    """Given scores that say that weights are random, then sanity speaks of NaN alone, and fails for it."""
    problem = Problem(prompt=1, kind="nan", detail="the image or its latents are not finite")
    note = "quality not judged: random weights"
    found = check("quality.sanity", make_record(scores=make_scores(lpips=(), note=note)))
    assert found is not None
    assert (found.verdict, found.basis) == ("pass", "no image may be NaN")
    assert found.why == "0 images are finite, and so are their latents"
    broken = make_scores(lpips=(), note=note, problems=(problem,))
    assert verdict("quality.sanity", make_record(scores=broken)) == "fail"


def module(name: str, expected: str | None, found: str | None) -> ModuleCoverage:
    """One linear layer."""
    return ModuleCoverage(
        name=name, module="Linear", expected=expected, found=found, tensor="T", dtype="float16", bytes=8
    )


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ([("a", "int8", None), ("b", "int8", "int8")], "transformer: 1 of 2 modules are float16 instead of int8: a"),
        ([("a", None, "int8")], "transformer: 1 of 1 modules are int8 instead of unquantized: a"),
        ([("a", "int8", "int4")], "transformer: 1 of 1 modules are int4 instead of int8: a"),
        (
            [(name, "int8", None) for name in "abcde"],
            "transformer: 5 of 5 modules are float16 instead of int8: a, b, c and 2 more",
        ),
    ],
)
def test_coverage(modules: list[tuple[str, str | None, str | None]], says: str) -> None:
    """Given modules that are not quantized as asked, then the check fails and names some."""
    manifest = Coverage(modules=tuple(module(*each) for each in modules))
    found = check("coverage.manifest", make_record(coverage={"transformer": manifest}))
    assert found is not None
    assert (found.verdict, found.why) == ("fail", says)


def test_coverage_as_asked() -> None:
    """Given modules as asked, then it passes; with a pattern that means none of them, it fails with the nearest."""
    modules = (module("blocks.0.proj_out", None, None), module("blocks.0.fc", "int8", "int8"))
    record = make_record(coverage={"transformer": Coverage(modules=modules)})
    assert verdict("coverage.manifest", record) == "pass"
    record = make_record(coverage={"transformer": Coverage(modules=modules, unmatched=("proj_oot",))})
    found = check("coverage.manifest", record)
    assert found is not None
    assert found.verdict == "fail"
    assert "'proj_oot' matches no module of transformer; did you mean 'proj_out'?" in found.why


@pytest.mark.parametrize(
    ("static", "limit", "expected"),
    [(500, "0.50x", "pass"), (501, "0.50x", "fail"), (1024, "1 KiB", "pass"), (1025, "1 KiB", "fail")],
)
def test_memory(static: int, limit: str, expected: str) -> None:
    """Given a limit in bytes or of the reference, then the cell passes up to it."""
    record, reference = make_record(memory=make_memory(static)), make_record(REFERENCE, memory=make_memory(1000))
    assert verdict("memory.static", record, reference, memory=limit) == expected


def test_peak_is_another_number() -> None:
    """Given a low static and a high peak, then only the peak's limit is broken."""
    record = make_record(memory=make_memory(10, peak=2000))
    found = [verdict(name, record, memory="1 KiB", memory_peak="1 KiB") for name in ("memory.static", "memory.peak")]
    assert found == ["pass", "fail"]


def test_relative_memory_needs_a_reference() -> None:
    """Given no reference, then nothing is decided; the reference itself is what budgets are not meant for."""
    assert verdict("memory.static", make_record(memory=make_memory(10)), memory="0.5x") == "void"
    assert verdict("memory.static", make_record(REFERENCE, memory=make_memory(10)), memory="0.5x") is None
    assert verdict("memory.static", make_record(REFERENCE, memory=make_memory(2000)), memory="1 KiB") is None


@pytest.mark.parametrize(("seconds", "expected"), [(1.5, "pass"), (1.6, "pass"), (1.7, "fail")])
def test_latency_ratio(seconds: float, expected: str) -> None:
    """Given pairs without noise, then the ratio passes up to its limit."""
    assert verdict("latency.ratio", make_record(timing=make_timing(seconds, 1.0)), latency="1.60x") == expected


def test_latency_that_straddles_the_limit() -> None:
    """Given pairs whose ratios lie on both sides of the limit, then nothing is decided, and the interval is said."""
    timing = Timing(samples_s=(1.0, 2.0) * 3, reference_s=(1.0,) * 6)
    found = check("latency.ratio", make_record(timing=timing), latency="1.20x")
    assert found is not None
    assert found.verdict == "void"
    assert "straddles 1.2x" in found.why


def test_latency_with_few_pairs() -> None:
    """Given two pairs, then nothing is decided."""
    assert verdict("latency.ratio", make_record(timing=make_timing(9.0, 1.0, pairs=2)), latency="1.1x") == "void"


@pytest.mark.parametrize(("seconds", "expected"), [(1.6, "pass"), (1.61, "fail")])
def test_latency_budget(seconds: float, expected: str) -> None:
    """Given a limit in seconds, then the median is compared with it; the reference has none."""
    record = make_record(timing=make_timing(seconds, 1.0))
    assert verdict("latency.budget", record, latency="1.6 s") == expected
    assert verdict("latency.budget", make_record(REFERENCE, timing=make_timing(9.0, 1.0)), latency="1.6 s") is None


@pytest.mark.parametrize(
    ("key", "name", "limit"),
    [
        ("memory", "memory.static", "1 KiB"),
        ("memory_peak", "memory.peak", "1 KiB"),
        ("latency", "latency.budget", "1 s"),
        ("disk", "roundtrip.disk", "1 KiB"),
    ],
)
@pytest.mark.parametrize(
    ("device_class", "pattern", "expected"),
    [
        ("cuda-nvidia-h100-80gb", "cuda-nvidia-h100*", "fail"),
        ("cuda-nvidia-h100-80gb", "cuda-*", "fail"),
        ("cuda-nvidia-a100-80gb", "cuda-nvidia-h100*", "void"),
        ("cpu-avx512", "cuda-*", "void"),
        ("", "*h100*", "void"),
    ],
)
def test_absolute_limits_of_a_device(
    key: str, name: str, limit: str, device_class: str, pattern: str, expected: str
) -> None:
    """Given a limit in bytes or seconds for some devices, then it binds there, and is void on any other."""
    saved = Roundtrip(disk_bytes=2000, components={}, equal=True, latents=(0.0,), dtype="float16")
    record = make_record(
        memory=make_memory(2000),
        timing=make_timing(2.0, 1.0),
        roundtrip=saved,
        fingerprint=make_fingerprint(device_class),
    )
    found = check(name, record, None, **{key: limit, "device": pattern})
    assert found is not None
    assert found.verdict == expected
    if expected == "void":
        assert f"binds on devices like '{pattern}', and this is {device_class or 'not known'}" in found.why


def test_a_device_is_no_excuse_for_other_limits() -> None:
    """Given limits of another device, then factors and distances of the same table bind all the same."""
    record = make_record(
        memory=make_memory(2000), scores=make_scores(lpips=(0.9, 0.9)), fingerprint=make_fingerprint("cpu-avx512")
    )
    reference = make_record(REFERENCE, memory=make_memory(1000))
    limits = {"device": "cuda-*", "memory": "0.5x", "lpips": 0.05}
    assert verdict("memory.static", record, reference, **limits) == "fail"
    assert verdict("quality.lpips", record, reference, **limits) == "fail"


def test_a_broken_reference_fails_its_cells() -> None:
    """Given a reference that is black, then a cell that equals it fails too, whichever cells are selected."""
    black = Problem(prompt=1, kind="black", detail="nothing to see")
    reference = make_record(REFERENCE, scores=Scores(problems=(black,)))
    found = check("quality.sanity", make_record(scores=make_scores()), reference)
    assert found is not None
    assert (found.verdict, found.value, found.why) == ("fail", 1.0, "its reference, prompt 1: black, nothing to see")


def test_a_reference_that_moved_decides_nothing() -> None:
    """Given a reference whose images changed beside the cell, then the cell is void, and says so."""
    assert verdict("drift.reference", make_record(reference_repeatable=False)) == "void"
    assert verdict("drift.reference", make_record(reference_repeatable=True)) is None


@pytest.mark.parametrize("key", ["lpips_worst", "clip_drop_worst"])
def test_a_limit_of_the_worst_prompt_alone_binds(key: str) -> None:
    """Given no limit of the mean, then the worst prompt's is not forgotten."""
    record = make_record(scores=make_scores(lpips=(0.9, 0.0), clip=(10.0, 95.0), clip_reference=(95.0, 95.0)))
    assert verdict(f"quality.{key.removesuffix('_worst')}", record, None, **{key: 0.5}) == "fail"


def test_asked_for_but_nothing_to_quantize() -> None:
    """Given a component of which no module can be quantized, then perfect quality is no excuse."""
    module = ModuleCoverage(
        name="a", module="Custom", expected=None, found=None, tensor="Tensor", dtype="float16", bytes=2
    )
    found = check("coverage.manifest", make_record(coverage={"unet": Coverage(modules=(module,), asked="int8")}))
    assert found is not None
    assert (found.verdict, found.why) == (
        "fail",
        "unet: int8 was asked for, but none of its modules can be quantized so",
    )


def test_scores_of_other_weights_are_refused() -> None:
    """Given a cell and a reference scored with different weights of one name, then no number is compared."""
    mine, other = (
        make_scores(clip=(9.0,), clip_reference=(9.0,), weights=(WeightsId("open_clip/pocket", digest * 64),))
        for digest in "ab"
    )
    reference = make_record(REFERENCE, scores=other)
    found = check("quality.clip_drop", make_record(scores=mine), reference, clip_drop=0.5)
    assert found is not None
    assert (found.verdict, found.value) == ("void", None)
    assert "different weights cannot be compared" in found.why


def test_nothing_asked_nothing_said() -> None:
    """Given no budgets and no measurements, then there is no check at all."""
    assert list(run(Subject(make_record(), None, {}))) == []


def video(**scores: object) -> Record:
    """Two prompts that give a video of three frames each."""
    return make_record(scores=make_scores(**({"lpips": (0.01,) * 6} | scores)), frames=3)


@pytest.mark.parametrize(
    ("values", "limits", "expected"),
    [
        ((0.1, 0.3), {"motion": 0.2}, "pass"),
        ((0.1, 0.31), {"motion": 0.2}, "fail"),
        ((0.0, 0.3), {"motion": 0.2, "motion_worst": 0.25}, "fail"),
        ((0.0, 0.3), {"motion_worst": 0.25}, "fail"),
        ((0.1, math.nan), {"motion": 0.2}, "fail"),
        ((9.0, 9.0), {"lpips": 0.2}, None),
    ],
)
def test_motion(values: tuple[float, ...], limits: dict[str, float], expected: str | None) -> None:
    """Given the motion of two videos, then mean and worst are limited as LPIPS is; without a limit nothing is said."""
    assert verdict("quality.motion", video(motion=values), None, **limits) == expected


def test_images_do_not_move() -> None:
    """Given images and a limit of motion for all cells, then there is no such check."""
    assert verdict("quality.motion", make_record(scores=make_scores()), motion=0.2) is None


def test_the_worst_frame_is_named() -> None:
    """Given one frame that is far away, then it is named with its prompt; a video's motion with its prompt alone."""
    record = video(lpips=(0.0, 0.0, 0.0, 0.0, 0.0, 0.09), motion=(0.0, 0.9))
    found = check("quality.lpips", record, lpips=0.05, lpips_worst=0.08)
    assert found is not None
    assert found.why == "worst LPIPS 0.0900 over 0.08 (budget), prompt 'a large blue square', frame 2"
    found = check("quality.motion", record, motion=0.5, motion_worst=0.8)
    assert found is not None
    assert found.why == "worst motion distance 0.9000 over 0.8 (budget), prompt 'a large blue square'"


def test_frames_that_are_no_images_are_counted_and_named() -> None:
    """Given two black frames of one video, then both are counted, and the frames are named, a reference's too."""
    black = tuple(Problem(prompt=1, kind="black", detail="mean 0.0", frame=frame) for frame in (0, 2))
    reference = make_record(REFERENCE, scores=Scores(problems=black[:1]), frames=3)
    found = check("quality.sanity", video(problems=black), reference)
    assert found is not None
    assert (found.verdict, found.value) == ("fail", 2.0)
    told = "prompt 1, frame 0: black, mean 0.0"
    assert found.why == f"{told}; prompt 1, frame 2: black, mean 0.0; its reference, {told}"

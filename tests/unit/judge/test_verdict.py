"""A cell is as bad as its worst check."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

from qregress.judge import checks
from qregress.judge.budgets import Limits
from qregress.judge.history import History
from qregress.judge.verdict import judge
from qregress.record import Check, Coverage, ModuleCoverage, Roundtrip, Verdict
from qregress.store.accept import as_accepted
from tests.making import (
    INT8,
    REFERENCE,
    make_acceptable,
    make_check,
    make_fingerprint,
    make_layer,
    make_memory,
    make_record,
    make_scores,
    make_timing,
)


def _say(check: Check, _: checks.Subject) -> Check:
    """A check that always says the same."""
    return check


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), "pass"),
        (("pass", "pass"), "pass"),
        (("pass", "new"), "new"),
        (("new", "void"), "void"),
        (("waived", "pass"), "waived"),
        (("void", "waived", "new"), "waived"),
        (("waived", "fail"), "fail"),
        (("void", "fail", "new"), "fail"),
    ],
)
def test_worst_check(verdicts: tuple[Verdict, ...], expected: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given checks with these verdicts, then the cell has the worst of them."""
    made = [make_check(verdict) for verdict in verdicts]
    monkeypatch.setattr(checks, "CHECKS", tuple(partial(_say, check) for check in made))
    result = judge(make_record(), None, {})
    assert result.verdict == expected
    assert list(result.checks) == made


@pytest.mark.parametrize("status", ["crashed", "not-run"])
def test_without_a_run_no_checks(status: str) -> None:
    """Given a cell that crashed or was not run, then that is its verdict, with its message and no checks."""
    record = make_record(status=status, message="no compiler", scores=make_scores(lpips=(9.0, 9.0)))
    result = judge(record, None, Limits.parse({"lpips": 0.05}).limits)
    assert (result.verdict, result.message, result.checks) == (status, "no compiler", ())


def test_every_number_of_a_cell() -> None:
    """Given a record with all figures, then the result has ratios, means over prompts, and counts of modules."""
    modules = tuple(
        ModuleCoverage(name=n, module="Linear", expected="int8", found=f, tensor=t, dtype="float16", bytes=8)
        for n, f, t in (("a", "int8", "Q"), ("b", None, "Tensor"))
    )
    record = make_record(
        memory=make_memory(250),
        timing=make_timing(1.5, 1.0),
        coverage={"transformer": Coverage(modules=modules)},
        scores=make_scores(
            lpips=(0.01, 0.03),
            clip=(30.0, 31.0),
            clip_reference=(31.0, 32.0),
            ssim=(0.8, 1.0),
            psnr_db=(20.0, None),
            latents=(0.1, None),
        ),
        images=("images/00.png",),
    )
    result = judge(record, make_record(REFERENCE, memory=make_memory(1000)), {})
    assert result.memory_ratio == 0.25
    assert result.latency is not None
    assert (result.latency.median_s, result.latency.ratio) == (1.5, 1.5)
    assert result.coverage is not None
    assert (result.coverage.quantized, result.coverage.eligible) == (1, 2)
    assert result.coverage.components["transformer"]["tensors"] == {"Q": 1, "Tensor": 1}
    assert result.scores == pytest.approx(
        {
            "lpips": 0.02,
            "lpips_worst": 0.03,
            "clip": 30.5,
            "clip_drop": 0.01,
            "ssim": 0.9,
            "psnr_db": 20.0,
            "latents": None,
        }
    )
    assert result.images == ("cells/pixart/int8/bs1/images/00.png",)
    assert result.sheet == "cells/pixart/int8/bs1/sheet.png"


def test_numbers_of_videos() -> None:
    """Given videos, then the mean of their motion is among the numbers; without a limit it is said to be unjudged."""
    record = make_record(scores=make_scores(lpips=(0.01,) * 6, motion=(0.1, 0.3)), frames=3)
    result = judge(record, None, Limits.parse({"lpips": 1}).limits)
    assert result.scores == pytest.approx({"lpips": 0.01, "lpips_worst": 0.01, "motion": 0.2})
    assert result.notes == ("measured but not judged, as no budget is set: motion",)
    assert judge(record, None, Limits.parse({"lpips": 1, "motion_worst": 1}).limits).notes == ()


def test_notes() -> None:
    """Given a cell that did not repeat, and scores that say what they lack, then both are said."""
    record = make_record(repeatable=False, scores=make_scores(note="quality not judged: random weights"))
    assert judge(record, None, {}).notes == (
        "not repeatable: the same prompt and seed gave other images in the same process",
        "quality not judged: random weights",
        "measured but not judged, as no budget is set: lpips",
    )


def test_latents_of_random_weights_need_a_budget() -> None:
    """Given random weights, whose images are not judged, then it is said where their latents are not either."""
    record = make_record(scores=make_scores(lpips=(), latents=(0.1,), note="quality not judged: random weights"))
    notes = ("quality not judged: random weights", "measured but not judged, as no budget is set: latents")
    assert judge(record, None, {}).notes == notes
    limited = judge(record, None, Limits.parse({"latents": 0.05}).limits)
    assert (limited.verdict, limited.notes) == ("fail", notes[:1])


def test_nothing_is_said_where_budgets_are_set() -> None:
    """Given limits for all that was measured, if only of the worst prompt, then no note; nor for a reference."""
    fields: dict[str, Any] = {"scores": make_scores(), "timing": make_timing(1.0, 1.0), "memory": make_memory(10)}
    limits = Limits.parse({"lpips_worst": 0.05, "latency": "1.6x", "memory": "1 KiB"}).limits
    assert judge(make_record(**fields), None, limits).notes == ()
    assert judge(make_record(REFERENCE, **fields), None, {}).notes == ()


def test_nothing_is_said_where_a_baseline_judges() -> None:
    """Given no budgets and a baseline, then what was compared is no more said to be judged by nothing."""
    record = make_acceptable(scores=make_scores(), memory=make_memory(10))
    note = "measured but not judged, as no budget is set: lpips, memory"
    assert judge(record, None, {}, history=History(None, "no baselines")).notes == (note,)
    assert judge(record, None, {}, history=History(as_accepted(record, judge(record, None, {})))).notes == ()


BITS = "latents are not the accepted ones to the bit, though no library has another version"


@pytest.mark.parametrize(
    ("latents", "packages", "repeatable", "said"),
    [
        ("9", {"torch": "2.14"}, True, True),
        ("9", {"torch": "2.14"}, None, True),
        ("0", {"torch": "2.14"}, True, False),
        ("9", {"torch": "2.15"}, True, False),
        ("9", {"torch": "2.14", "optimum-quanto": "0.2"}, True, False),
        ("9", {}, True, False),
        ("9", {"torch": "2.14"}, False, False),
    ],
)
def test_other_bits(latents: str, packages: dict[str, str], repeatable: bool | None, said: bool) -> None:
    """Given other latents than accepted, then a note says so where all libraries are the same and the cell repeats."""
    where = msgspec.structs.replace(make_fingerprint(), packages={"torch": "2.14"})
    before = make_acceptable(fingerprint=where)
    past = History(as_accepted(before, judge(before, None, {})))
    now = make_acceptable(
        latents_sha256=latents * 64,
        repeatable=repeatable,
        fingerprint=msgspec.structs.replace(where, packages=packages),
    )
    result = judge(now, None, {}, history=past)
    assert (BITS in result.notes) == said
    assert result.verdict == "pass"  # a note only
    assert BITS not in judge(now, None, {}, history=History(None, "no baselines")).notes
    assert BITS not in judge(now, None, {}).notes


def test_comparisons_come_last() -> None:
    """Given budgets and no baseline, then budgets bind, in their order, and comparisons are new behind them."""
    record = make_acceptable(scores=make_scores(lpips=(0.9, 0.9)), memory=make_memory(10))
    result = judge(record, None, Limits.parse({"lpips": 0.05}).limits, history=History(None, "no baselines"))
    assert [(check.name, check.verdict) for check in result.checks] == [
        ("quality.sanity", "pass"),
        ("quality.lpips", "fail"),
        ("regression.lpips", "new"),
        ("regression.memory", "new"),
    ]
    assert result.verdict == "fail"


def test_every_check_can_be_waived() -> None:
    """Given a record for which every check is made, then a configuration may name each of them in a waiver."""
    module = ModuleCoverage(name="a", module="L", expected="int8", found="int8", tensor="Q", dtype="float16", bytes=8)
    fields: dict[str, Any] = {
        "memory": make_memory(10),
        "timing": make_timing(1.0, 1.0, busy_s=(0.9,), reference_busy_s=(0.8,)),
        "coverage": {"transformer": Coverage(modules=(module,))},
        "scores": make_scores(clip=(30.0, 30.0), clip_reference=(30.0, 30.0), latents=(0.1, 0.1), motion=(0.1, 0.1)),
        "images": ("images/00.png",),
        "fidelity": {"transformer": (make_layer(),)},
        "roundtrip": Roundtrip(disk_bytes=8, components={}, equal=True, latents=(0.0,), dtype="float16"),
    }
    plain: dict[str, Any] = dict.fromkeys(("lpips", "clip_drop", "latents", "motion"), 1) | {"disk": "1 KiB"}
    tables = (
        plain | {"memory": "1 KiB", "memory_peak": "1 KiB", "latency": unit, "busy": unit} for unit in ("9 s", "9x")
    )
    past = History(None, "no baselines")
    found = {
        check.name
        for table in tables
        for cell in (REFERENCE, INT8)
        for check in judge(make_record(cell, **fields), None, Limits.parse(table).limits, history=past).checks
    }
    assert found == set(checks.CHECK_NAMES)


@pytest.mark.parametrize(("note", "sheet"), [(None, "cells/pixart/int8/bs1/sheet.png"), ("random weights", None)])
def test_noise_has_no_sheet(note: str | None, sheet: str | None) -> None:
    """Given images of random weights, then they are kept, and no sheet of them is drawn."""
    record = make_record("pixart/int8/bs1", images=("images/00.png",), scores=make_scores(note=note))
    assert judge(record, None, {}).sheet == sheet


def test_judging_again_gives_the_same() -> None:
    """Given a record, when it is judged twice, then the verdicts are equal: nothing is drawn or measured."""
    record = make_record(timing=make_timing(1.5, 1.0), scores=make_scores())
    limits = Limits.parse({"lpips": 0.05, "latency": "1.6x"}).limits
    found: tuple[Check, ...] = judge(record, None, limits).checks
    assert [check.name for check in found] == ["quality.sanity", "quality.lpips", "latency.ratio"]
    assert judge(record, None, limits) == judge(record, None, limits)

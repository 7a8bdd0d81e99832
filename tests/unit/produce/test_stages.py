"""Stages of a call, of the pocket pipeline as it is."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from msgspec import UNSET

from qregress import pipelines
from qregress.matrix import Workload
from qregress.produce.generate import Generated, OnStep, generate
from qregress.produce.latency import Calls
from qregress.produce.stages import Marks, typical, watched
from qregress.produce.variant import assemble
from qregress.record import Stages

WORKLOAD = Workload(name="w", prompts=("a red circle",), steps=2)


@pytest.fixture(scope="module")
def pocket() -> Any:
    """The pocket pipeline."""
    return pipelines.load("pocket:pixart-sigma", "float16", "cpu")


def test_each_component_is_in_its_own_stage(pocket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a clock that only components move, then each moves the stage that it belongs to."""
    pipeline = assemble(pocket, {})
    source = pipelines.check("pocket:pixart-sigma")
    now = [0.0]
    monkeypatch.setattr("qregress.produce.stages.time.perf_counter", lambda: now[0])
    with ExitStack() as hooks:
        for part, seconds in (
            (pipeline.text_encoder, 1.0),
            (pipeline.transformer, 10.0),
            (pipeline.vae.decoder, 100.0),
        ):

            def pass_time(*_: Any, seconds: float = seconds) -> None:
                now[0] += seconds

            hooks.callback(part.register_forward_hook(pass_time).remove)
        with watched(pipeline, "cpu") as marks:
            generate(pipeline, source, WORKLOAD, [0], torch.zeros(1, 4, 16, 16), marks.on_step)
    # A prompt and the empty one of guidance are encoded one after the other, and denoised together.
    assert typical([marks]) == Stages(encode_s=2.0, step_s=10.0, steps=2, decode_s=100.0)


def test_the_beginning_of_a_call(pocket: Any) -> None:
    """Given a call that is to end at a step, then it does, or at its own end; and neither is among the timed ones."""
    pipeline, done = assemble(pocket, {}), list[int]()

    def call(batch: range, on_step: OnStep | None) -> Generated:
        assert on_step is not None

        def step(count: int) -> None:
            done.append(count)
            on_step(count)

        return generate(pipeline, source, WORKLOAD, batch, torch.zeros(1, 4, 16, 16), step)

    source = pipelines.check("pocket:pixart-sigma")
    calls, told = Calls(pipeline, call, "cpu"), list[int]()
    before = calls.stages
    assert before is UNSET
    calls(range(1))
    stages = calls.stages
    assert isinstance(stages, Stages)
    done.clear()
    beginning = calls.beginning(range(1))
    assert beginning.steps == stages.steps == 2
    assert beginning.until(1, told.append)
    assert done == told == [1]
    assert not beginning.until(5, told.append)
    assert done == told == [1, 1, 2]
    assert calls.stages == stages


def test_a_call_of_several_denoisers_has_no_beginning(pocket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a second denoiser, which may be called after the first steps only, then a call goes to its end."""
    pipeline = assemble(pocket, {})
    source, zeros = pipelines.check("pocket:pixart-sigma"), torch.zeros(1, 4, 16, 16)
    calls = Calls(pipeline, lambda batch, step: generate(pipeline, source, WORKLOAD, batch, zeros, step), "cpu")
    monkeypatch.setattr("qregress.produce.latency.denoisers", lambda _: ("transformer", "transformer_2"))
    done = list[int]()
    assert not calls.beginning(range(1)).until(1, done.append)
    assert done == [1, 2]


def test_what_cannot_be_told_apart() -> None:
    """Given a call without a denoiser or a step, then it has no stages, and is left out of the median."""
    marks = Marks("cpu")
    marks.on_step(1)
    marks.end()
    assert marks.stages() is None
    assert typical([marks]) is None

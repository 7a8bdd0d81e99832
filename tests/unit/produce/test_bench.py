"""What a bench does between passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import PNDMScheduler

from qregress.matrix import Pipeline, Workload
from qregress.produce.bench import Bench
from qregress.produce.generate import Generated
from qregress.produce.protocol import Options


@pytest.mark.parametrize(("steps", "taken"), [(None, 2), (20, 2), (1, 1)])
def test_warming_up_goes_to_the_end_of_a_call_in_few_steps(
    steps: int | None, taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a workload of many steps, then two of them are taken, and latents are decoded as in any call."""
    pipeline = Pipeline(name="pixart-sigma", source="pocket:pixart-sigma", devices=("cpu",))
    options = Options(device="cpu", out=str(tmp_path), lpips="st-alex", clip="pocket", pairs=1, time_s=0.0)
    bench = Bench(pipeline, options, lambda _: None)
    workload = Workload(name="bs1", prompts=("a red circle", "a blue star"), steps=steps)
    loaded = bench._unquantized.pipeline("float16")
    initial = bench._unquantized.initial(loaded, workload)
    made: list[Generated] = []
    call = bench._unquantized.call

    def watched(*arguments: object) -> Generated:
        made.append(call(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(bench._unquantized, "call", watched)
    bench._warm(loaded, workload, initial)
    [only] = made
    assert only.trajectory.shape[:2] == (1, taken)
    assert only.images.shape == (1, 3, 128, 128)


def test_a_scheduler_that_cannot_take_so_few_steps(tmp_path: Path) -> None:
    """Given a scheduler that raises for two steps, then the call is made in as many as the workload has."""
    pipeline = Pipeline(name="pixart-sigma", source="pocket:pixart-sigma", devices=("cpu",))
    options = Options(device="cpu", out=str(tmp_path), lpips="st-alex", clip="pocket", pairs=1, time_s=0.0)
    bench = Bench(pipeline, options, lambda _: None)
    workload = Workload(name="bs1", prompts=("a red circle",), steps=10)
    loaded = bench._unquantized.pipeline("float16")
    initial = bench._unquantized.initial(loaded, workload)
    loaded.scheduler = PNDMScheduler.from_config(loaded.scheduler.config)
    with pytest.raises(ValueError, match="broadcast"):
        loaded.scheduler.set_timesteps(2)
    bench._warm(loaded, workload, initial)
    assert loaded.scheduler.num_inference_steps == 10

"""Schedules, checkpoints and objectives."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training import objectives
from training.runtime import Length, Optimizer, Trainer

SETTINGS = Optimizer(rate=1e-2, warmup=4, decay=0.5, ema=0.9)


def run(folder: Path, steps: int, hold: bool = False) -> Trainer:
    """Train a line to fit noise from the trainer's own generator, up to `steps`."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    trainer = Trainer({"line": model}, SETTINGS, Length(steps, None, hold), folder)
    while not trainer.done():
        batch = torch.randn(8, 3, generator=trainer.generator)
        trainer.update((model(batch) - batch[:, :2]).square().mean())
    trainer.report("line")
    trainer.save()
    return trainer


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """Stopping and going on changes nothing but the rounding of Adam's moments."""
    whole = run(tmp_path / "whole", 20, hold=True)
    run(tmp_path / "parts", 8, hold=True)
    resumed = run(tmp_path / "parts", 20, hold=True)
    assert whole.step == resumed.step
    for one, other in zip(whole.parameters + whole.average, resumed.parameters + resumed.average, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    """Given weights that were trained with other token ids, then they are neither continued nor exported."""

    def trainer(vocabulary: str | None) -> Trainer:
        return Trainer({"line": nn.Linear(1, 1)}, SETTINGS, Length(10, None, hold=False), tmp_path / "run", vocabulary)

    trainer("one").save()
    trainer("one")
    with pytest.raises(ValueError, match="run was trained with another vocabulary than the tokenizers here make"):
        trainer("other")


def test_rate_warms_up_holds_and_decays(tmp_path: Path) -> None:
    """The course of the learning rate over ten steps."""
    model = nn.Linear(1, 1)
    trainer = Trainer({"line": model}, SETTINGS, Length(10, None, hold=False), tmp_path)
    rates = []
    for step in range(10):
        trainer.step = step
        rates.append(round(trainer.rate() / SETTINGS.rate, 3))
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """Rather than train on, and overwrite a good checkpoint."""
    model = nn.Linear(1, 1)
    trainer = Trainer({"line": model}, SETTINGS, Length(10, None, hold=False), tmp_path)
    trainer.update(model(torch.full((1, 1), float("nan"))).sum())
    with pytest.raises(FloatingPointError, match="step 1"):
        trainer.report("line")


def test_epsilon_mixes_data_and_noise_by_variance() -> None:
    """Signal and noise shares add to one, and the weight is min-SNR's."""
    objective = objectives.build({"kind": "epsilon", "snr_gamma": 5.0}, torch.device("cpu"))
    clean, noise = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    level = torch.tensor([0.0, 0.999])
    signal = objective.sample(clean, noise, level).noisy.flatten()
    other = objective.sample(noise, clean, level).noisy.flatten()
    torch.testing.assert_close(signal**2 + other**2, torch.ones(2))
    weight = objective.sample(clean, noise, level).weight
    snr = signal**2 / other**2
    torch.testing.assert_close(weight, snr.clamp(max=5.0) / snr)


def test_flow_goes_straight_from_data_to_noise() -> None:
    """The velocity is the difference, and the timestep a thousandth of the way each."""
    objective = objectives.build({"kind": "flow"}, torch.device("cpu"))
    clean, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 6.0)
    sample = objective.sample(clean, noise, torch.tensor([0.25]))
    assert [float(sample.noisy), float(sample.timestep), float(sample.target)] == [3.0, 250.0, 4.0]


def test_unknown_objective_is_refused() -> None:
    """By name."""
    with pytest.raises(ValueError, match="unknown objective 'score'"):
        objectives.build({"kind": "score"}, torch.device("cpu"))


def test_velocity_is_the_noise_turned_by_a_quarter() -> None:
    """Signal and noise can be read back from a noisy sample and its velocity."""
    table = {"kind": "velocity", "snr_gamma": 5.0, "beta_schedule": "scaled_linear", "beta_end": 0.03}
    objective = objectives.build(table, torch.device("cpu"))
    clean, noise = torch.full((1, 1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1, 1), 6.0)
    level = torch.tensor([0.3])
    sample = objective.sample(clean, noise, level)
    signal = objective.sample(torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1), level).noisy
    spread = (1 - signal**2).sqrt()
    torch.testing.assert_close(signal * sample.noisy - spread * sample.target, clean)
    torch.testing.assert_close(spread * sample.noisy + signal * sample.target, noise)

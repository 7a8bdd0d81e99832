"""What a family trains is what its pipeline runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from training import denoise, runtime, scenes, text, vae_model
from training.families import BUILDERS, Family

RECIPES = sorted(path.stem for path in denoise.RECIPES.glob("*.toml"))


def built(recipe: dict[str, Any]) -> Family:
    """The family with every weight disturbed: blocks that start as the identity would hide what they read."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        # Families that take over another's components look for them beside their own folder.
        (Path(scratch) / "pixart-sigma").symlink_to(runtime.ZOO / "pixart-sigma")
        family = BUILDERS[recipe["family"]](recipe["model"], Path(scratch) / recipe["family"])
    for module in family.modules.values():
        for parameter in module.parameters():
            parameter.data += 0.08 * torch.randn_like(parameter)
    return family


@pytest.mark.parametrize("name", RECIPES)
def test_training_calls_the_components_as_the_pipeline_does(name: str) -> None:
    """Given a caption, when the pipeline takes its first step, then it steps by what `predict` says."""
    recipe = denoise.read_recipe(name)
    family = built(recipe)
    vae: AutoencoderKL = vae_model.build(16 if recipe["shared"]["vae"] == "vae-16" else 4)
    pipeline = family.pipeline(vae)
    pipeline.set_progress_bar_config(disable=True)
    codes = scenes.sample(2, torch.Generator().manual_seed(1))
    lines = text.words(codes)
    frames = [recipe["model"]["frames"]] if "frames" in recipe["model"] else []
    noise = torch.randn(2, vae.config.latent_channels, *frames, 16, 16, generator=torch.Generator().manual_seed(2))
    seen: list[tuple[Any, ...]] = []
    step = pipeline.scheduler.step

    def watched(output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((output.clone(), *args))
        return step(output, *args, **kwargs)

    pipeline.scheduler.step = watched
    call = {**recipe["call"], "guidance_scale": 1.0, "num_inference_steps": 2}
    pipeline(text.strings(lines), latents=noise, height=128, width=128, output_type="latent", **call)
    output, timestep, sample = seen[0]
    tokens = family.tokens(lines, torch.ones(2, dtype=torch.bool))
    with torch.no_grad():
        expected = family.predict(sample, timestep.expand(2), tokens)
    # Padded and unpadded sequences sum in another order: 2e-6 seen, where another caption changes more than 1e-3.
    error = float((output - expected).abs().max())
    assert error < 1e-4
    other = family.tokens(text.words(scenes.sample(2, torch.Generator().manual_seed(3))), torch.ones(2) > 0)
    with torch.no_grad():
        changed = float((expected - family.predict(sample, timestep.expand(2), other)).abs().max())
    assert changed > 1e-3


def test_the_vocabulary_tells_another_order_of_pieces() -> None:
    """Given a tokenizer with two words in each other's place, then its token ids are another vocabulary."""
    family = built(denoise.read_recipe("aura_flow"))
    before = denoise.vocabulary(family)
    assert before == denoise.vocabulary(built(denoise.read_recipe("aura_flow")))
    table: Any = family
    ids = table._table.ids
    ids[[4, 5]] = ids[[5, 4]]
    assert denoise.vocabulary(family) != before


def test_captions_are_dropped_for_each_encoder_apart() -> None:
    """Given an encoder's share, then encoders lose captions independently, and all of them with the common share."""
    family = built(denoise.read_recipe("sd3"))
    table = {"caption_drop": 0.2, "encoder_drop": 0.5}
    keep = denoise.keeps(family, 4000, table, torch.Generator().manual_seed(0))
    first, second, third = (part for part in keep.split(family.parts, dim=1))
    assert all(bool((part == part[:, :1]).all()) for part in (first, second, third))
    all_three = (first[:, 0] & second[:, 0] & third[:, 0]).float().mean()
    assert float(all_three) == pytest.approx(0.8 * 0.5**3, abs=0.02)

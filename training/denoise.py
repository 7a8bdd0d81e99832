"""Train a family's denoiser and text encoders: `python -m training.denoise --recipe pixart_sigma --folder runs/pixart`.

Scenes are rendered and encoded once into latents that stay on the device; captions become token ids there too. Which
family, which objective and all sizes stand in `training/recipes/<recipe>.toml`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from training import data, objectives, runtime, scenes, text
from training.families import BUILDERS, Family
from training.objectives import Objective
from training.runtime import Graph, Length, Optimizer, Trainer

RECIPES = Path(__file__).parent / "recipes"


def read_recipe(name: str) -> dict[str, Any]:
    """The recipe of a name, as "pixart_sigma"."""
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def optimizer(recipe: dict[str, Any]) -> Optimizer:
    """The recipe's `[optimizer]` table."""
    known = {field.name for field in fields(Optimizer)}
    unknown = set(recipe["optimizer"]) - known
    if unknown:
        raise ValueError(f"unknown in [optimizer]: {sorted(unknown)}; known: {sorted(known)}")
    table = {**recipe["optimizer"], "betas": tuple(recipe["optimizer"]["betas"])}
    return Optimizer(**table)


def shared_vae(recipe: dict[str, Any], zoo: Path) -> AutoencoderKL:
    """The autoencoder that the recipe names, frozen, in float32."""
    vae = AutoencoderKL.from_pretrained(zoo / "shared" / recipe["shared"]["vae"], torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


def loss_of(family: Family, objective: Objective) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The training loss as a function of clean latents, noise, noise levels in [0, 1) and token ids."""

    def loss(clean: Tensor, noise: Tensor, uniform: Tensor, tokens: Tensor) -> Tensor:
        sample = objective.sample(clean, noise, uniform)
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=clean.device.type == "cuda"):
            output = family.predict(sample.noisy, sample.timestep, tokens)
        error = (output.float() - sample.target).square().flatten(1).mean(dim=1)
        return (sample.weight * error).mean()

    return loss


def captions(family: Family, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids of all scenes in both templates, (2, N, length) int16, and of the empty prompt, (length,)."""
    keep = torch.ones(scenes_at_once := 65536, dtype=torch.bool, device=codes.device)
    both = [
        torch.cat(
            [
                family.tokens(text.words(part, template), keep[: len(part)]).short()
                for part in codes.split(scenes_at_once)
            ]
        )
        for template in range(2)
    ]
    empty = family.tokens(text.words(codes[:1]), torch.zeros(1, dtype=torch.bool, device=codes.device))[0]
    return torch.stack(both), empty.short()


def vocabulary(family: Family) -> str:
    """SHA-256 of the token ids of some captions, hex.

    SentencePiece orders pieces of one score differently on different machines: a checkpoint and a tokenizer that was
    made again elsewhere need not fit each other.
    """
    codes = scenes.sample(256, torch.Generator().manual_seed(0), held=None)
    ids = family.tokens(text.words(codes), torch.ones(len(codes), dtype=torch.bool))
    return hashlib.sha256(ids.long().numpy().tobytes()).hexdigest()


def keeps(family: Family, count: int, table: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Which token ids are the caption's and not the empty prompt's, (count, ids).

    All encoders lose a caption with `caption_drop`, and each by itself with `encoder_drop`: so the denoiser learns
    to read every one of them.
    """

    def kept(columns: int, share: float) -> Tensor:
        return torch.rand(count, columns, generator=generator, device=generator.device) >= share

    keep = kept(1, table["caption_drop"]) & kept(len(family.parts), table.get("encoder_drop", 0.0))
    return torch.cat([keep[:, [index]].expand(-1, size) for index, size in enumerate(family.parts)], dim=1)


def draw_scenes(
    recipe: dict[str, Any], vae: AutoencoderKL, number: int, device: torch.device, file: Path | None
) -> tuple[Tensor, Tensor]:
    """Codes and latents of the recipe's set of scenes of a number; the first from a file where one is given."""
    count, seed = recipe["data"]["scenes"], 1000 + number
    if file is not None and number == 0:
        return data.stored(file, vae, count, seed, device)
    return data.latents(vae, count, seed, device, recipe["model"].get("frames"))


def train(
    recipe: dict[str, Any],
    settings: Optimizer,
    folder: Path,
    length: Length,
    zoo: Path,
    every: int = 200,
    latents: Path | None = None,
    start: Path | None = None,
) -> Family:
    """Train or continue in `folder`; returns the family with its averaged weights."""
    device = runtime.device()
    torch.manual_seed(0)
    family = BUILDERS[recipe["family"]](recipe["model"], zoo / recipe["family"])
    if start is not None:
        runtime.load_average(family.modules, start)
    for module in [*family.modules.values(), *family.frozen.values()]:
        module.to(device)
    for module in family.modules.values():
        module.train()
    trainer = Trainer(family.modules, settings, length, folder, vocabulary(family))
    vae = shared_vae(recipe, zoo).to(device)
    runtime.compile_blocks(family.blocks)
    loss = Graph(loss_of(family, objectives.build(recipe["objective"], device)), trainer.parameters)
    table, generator = recipe["data"], trainer.generator
    clean = tokens = empty = torch.empty(0)
    drawn, saved = -1, time.monotonic()
    while not trainer.done():
        if trainer.step // table["refresh"] != drawn:
            drawn = trainer.step // table["refresh"]
            codes, clean = draw_scenes(recipe, vae, drawn, device, latents)
            tokens, empty = captions(family, codes)
            spread = float(clean[:4096].float().std())
            print(f"{recipe['family']} {len(codes)} scenes, latents' std {spread:.4f}", flush=True)
        rows = torch.randint(len(clean), (settings.batch,), generator=generator, device=device)
        batch = clean[rows].float()
        noise = torch.randn(batch.shape, generator=generator, device=device)
        # One draw in each of `batch` equal strata: the same distribution with less noise in the loss.
        uniform = torch.rand(settings.batch, generator=generator, device=device)
        uniform = (torch.arange(settings.batch, device=device) + uniform) / settings.batch
        keep = keeps(family, settings.batch, table, generator)
        template = (torch.rand(settings.batch, generator=generator, device=device) < 0.2).long()
        prompts = torch.where(keep, tokens[template, rows], empty).long()
        trainer.update(loss(batch, noise, uniform.clamp(max=1 - 1e-6), prompts))
        if trainer.step % every == 0 or trainer.step == 50:
            trainer.report(recipe["family"])
        if time.monotonic() - saved > 120:
            trainer.save()
            saved = time.monotonic()
    trainer.report(recipe["family"])
    trainer.save()
    trainer.use_average()
    return family


def load(recipe: dict[str, Any], folder: Path, zoo: Path) -> Family:
    """The family with the averaged weights of a checkpoint, on the CPU."""
    family = BUILDERS[recipe["family"]](recipe["model"], zoo / recipe["family"])
    state = runtime.load_average(family.modules, folder)
    runtime.check_vocabulary(state, vocabulary(family), folder)
    return family


def preview(family: Family, vae: nn.Module, recipe: dict[str, Any], path: Path, count: int = 32) -> None:
    """Save a picture of held-out captions, drawn by the family's own pipeline."""
    device = runtime.device()
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    pipeline = family.pipeline(vae).to(device, dtype)
    pipeline.set_progress_bar_config(disable=True)
    codes = scenes.sample(count, torch.Generator().manual_seed(5), held=True)
    pictures = pipeline(
        text.strings(text.words(codes)),
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        height=128,
        width=128,
        **recipe["call"],
    )[0]
    if pictures.ndim == 5:  # clips: the middle frame
        pictures = pictures[:, pictures.shape[1] // 2]
    picture = data.grid((pictures.float() * 255).round().byte().cpu(), 8)
    Image.fromarray(picture.numpy()).save(path)


def main() -> None:
    """Train, then save a sample picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True, help="name of a file in training/recipes")
    parser.add_argument("--zoo", type=Path, default=runtime.ZOO, help="where the shared autoencoder is")
    parser.add_argument("--latents", type=Path, help="file of the first set's latents, made where it is missing")
    parser.add_argument("--scenes", type=int, help="in place of the recipe's number")
    arguments, length = runtime.arguments(parser)
    recipe = read_recipe(arguments.recipe)
    settings = runtime.override(optimizer(recipe), arguments)
    if arguments.scenes:
        recipe["data"]["scenes"] = arguments.scenes
    family = train(
        recipe,
        settings,
        arguments.folder,
        length,
        arguments.zoo,
        latents=arguments.latents,
        start=arguments.start,
    )
    vae = shared_vae(recipe, arguments.zoo)
    preview(family, vae, recipe, arguments.folder / "samples.png", 32 if torch.cuda.is_available() else 8)


if __name__ == "__main__":
    main()

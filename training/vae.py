"""Train the shared autoencoder: `python -m training.vae --folder runs/vae-4 --steps 20000`.

The loss is the absolute error, the absolute error of neighbouring pixels' differences (edges), and a small KL term.
The decoder sees latents with noise added, because a denoiser's are never exact and shapes must stay crisp.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from training import data, runtime, vae_model
from training.runtime import Graph, Length, Optimizer, Trainer

SETTINGS = Optimizer(rate=1e-3, batch=64, warmup=500, decay=0.5, ema=0.998, weight_decay=1e-3)
KL = 1e-5
LATENT_NOISE = 0.15  # largest standard deviation of the added noise, in standard deviations of the latents
POOL = 131072  # rendered scenes


def edges(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, down and across."""
    return image.diff(dim=2), image.diff(dim=3)


def loss(model: AutoencoderKL, image: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    """Mean loss of images (N, 3, H, W) in [-1, 1], for latent noise (2, N, C, h, w) and its strengths (N,)."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=image.device.type == "cuda"):
        posterior = model.encode(image).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latent = mean + (0.5 * logvar).exp() * noise[0]
        latent = latent + strength[:, None, None, None] * mean.detach().std() * noise[1]
        output = model.decode(latent).sample.float()
    error = (output - image).abs().mean()
    for ours, theirs in zip(edges(output), edges(image), strict=True):
        error = error + (ours - theirs).abs().mean()
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    total: Tensor = error + KL * divergence
    return total


@torch.no_grad()
def evaluate(model: AutoencoderKL, device: torch.device, count: int = 512) -> tuple[dict[str, float], Tensor]:
    """PSNR in dB on held-out scenes, also with latents 5 % and 10 % off; the latents' statistics; and a picture."""
    pictures = data.images(count, 7, device, held=True)[1]
    generator = torch.Generator(device).manual_seed(7)
    errors = {0.0: 0.0, 0.05: 0.0, 0.1: 0.0}
    square, mean_sum, size, shown = 0.0, 0.0, 0, torch.empty(0)
    for part in pictures.split(64):
        image = data.signed(part)
        mean = model.encode(image).latent_dist.mean
        square += float(mean.square().sum())
        mean_sum += float(mean.sum())
        size += mean.numel()
        for strength in errors:
            noise = torch.randn(mean.shape, generator=generator, device=device)
            output = model.decode(mean + strength * mean.std() * noise).sample.clamp(-1, 1)
            # PSNR of the mean error of all images, on [0, 1].
            errors[strength] += float(((output - image) / 2).square().mean(dim=(1, 2, 3)).sum())
            if not shown.numel() and strength == 0.05:
                shown = torch.cat((image[:16], output[:16]))
    decibels = {strength: -10 * torch.tensor(error / count).log10().item() for strength, error in errors.items()}
    figures = {
        "psnr": decibels[0.0],
        "psnr_5_percent_off": decibels[0.05],
        "psnr_10_percent_off": decibels[0.1],
        "latent_mean": mean_sum / size,
        "latent_std": (square / size - (mean_sum / size) ** 2) ** 0.5,
    }
    picture = data.grid(((shown + 1) * 127.5).round().byte(), 8).cpu()
    return {name: round(value, 4) for name, value in figures.items()}, picture


def train(
    folder: Path, length: Length, settings: Optimizer, arguments: argparse.Namespace, every: int = 200
) -> AutoencoderKL:
    """Train or continue in `folder`; returns the averaged model."""
    device = runtime.device()
    torch.manual_seed(0)
    channels, pool = arguments.channels, arguments.pool
    model = vae_model.build(channels)
    if arguments.start:
        runtime.load_average({"vae": model}, arguments.start)
    model.to(device, memory_format=torch.channels_last)
    if arguments.decoder:
        model.encoder.requires_grad_(False)
        if model.quant_conv is not None:
            model.quant_conv.requires_grad_(False)
    trainer = Trainer({"vae": model}, settings, length, folder)
    pictures = data.images(pool, 1, device)[1]
    compiled = Graph(functools.partial(runtime.compiled(loss), model), trainer.parameters)
    generator = trainer.generator
    saved = time.monotonic()
    while not trainer.done():
        rows = torch.randint(pool, (settings.batch,), generator=generator, device=device)
        image = data.signed(pictures[rows]).to(memory_format=torch.channels_last)
        noise = torch.randn(2, settings.batch, channels, 16, 16, generator=generator, device=device)
        strength = torch.rand(settings.batch, generator=generator, device=device) * LATENT_NOISE
        trainer.update(compiled(image, noise, strength))
        if trainer.step % every == 0 or trainer.step == 50:
            trainer.report("vae")
        if time.monotonic() - saved > 120:
            trainer.save()
            saved = time.monotonic()
    trainer.report("vae")
    trainer.save()
    trainer.use_average()
    return model


def load(folder: Path, channels: int = 4) -> AutoencoderKL:
    """The averaged model of a checkpoint, with its scaling factor measured."""
    model = vae_model.build(channels)
    runtime.load_average({"vae": model}, folder)
    device = runtime.device()
    model.to(device).eval().requires_grad_(False)
    figures, _ = evaluate(model, device, 256)
    model.register_to_config(scaling_factor=round(1 / figures["latent_std"], 5))
    if model.config.shift_factor is not None:
        model.register_to_config(shift_factor=round(figures["latent_mean"], 5))
    return model


def main() -> None:
    """Train, then print the figures and save a picture: originals above their reconstructions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=4, help="latent channels")
    parser.add_argument("--pool", type=int, default=POOL, help="rendered scenes")
    parser.add_argument("--decoder", action="store_true", help="keep the encoder, and so all latents, as they are")
    arguments, length = runtime.arguments(parser)
    settings, folder = runtime.override(SETTINGS, arguments), arguments.folder
    model = train(folder, length, settings, arguments)
    figures, picture = evaluate(model.eval(), runtime.device(), 64 if arguments.pool < 1000 else 512)
    print(f"vae {figures}", flush=True)
    runtime.write_json(folder / "figures.json", figures)
    Image.fromarray(picture.numpy()).save(folder / "samples.png")


if __name__ == "__main__":
    main()

"""Scenes in bulk, on the training device: rendered images as bytes, and the latents of a shared autoencoder."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training import render, runtime, scenes

CHUNK = 2048  # scenes drawn at a time


def images(count: int, seed: int, device: torch.device, held: bool | None = False) -> tuple[Tensor, Tensor]:
    """Codes (count, FIELDS) and their images (count, 3, SIDE, SIDE) as uint8, both on `device`."""
    generator = torch.Generator(device).manual_seed(seed)
    codes = scenes.sample(count, generator, held)
    pictures = torch.empty(count, 3, render.SIDE, render.SIDE, dtype=torch.uint8, device=device)
    for start in range(0, count, CHUNK):
        part = codes[start : start + CHUNK]
        pictures[start : start + CHUNK] = (render.render(part, generator) * 255).round().byte()
    return codes, pictures


def signed(pictures: Tensor) -> Tensor:
    """Bytes to the autoencoder's range, float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


@torch.no_grad()
def latents(
    vae: AutoencoderKL, count: int, seed: int, device: torch.device, frames: int | None = None
) -> tuple[Tensor, Tensor]:
    """Codes and scaled latents (count, C, [frames,] SIDE / 8, SIDE / 8), float16, of the training split.

    The posterior's mean, shifted and scaled as the configuration says: what a denoiser is to produce.
    """
    generator = torch.Generator(device).manual_seed(seed)
    codes = scenes.sample(count, generator)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side, channels, many = render.SIDE // factor, vae.config.latent_channels, frames or 1
    result = torch.empty(count, many, channels, side, side, dtype=torch.float16, device=device)
    step = min(CHUNK, count) if device.type == "cuda" else 32
    for start in range(0, count, step):
        geometry = render.place(codes[start : start + step], generator)
        speed = render.speeds(geometry, generator) if frames else None
        for frame in range(many):
            moved = geometry if speed is None else render.moved(geometry, speed * (frame - (many - 1) / 2))
            part = (render.draw(moved) * 2 - 1).to(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                mean = vae.encode(part).latent_dist.mean.float()
            scaled = (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
            result[start : start + step, frame] = scaled.half()
    return codes, result.transpose(1, 2).contiguous() if frames else result[:, 0]


def stored(file: Path, vae: AutoencoderKL, count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Codes and latents as `latents` gives them, from a file where it is: several trainings may share one."""
    if not file.is_file():
        content = dict(zip(("codes", "latents"), latents(vae, count, seed, device), strict=True))
        fresh = file.with_suffix(".new")
        torch.save({name: tensor.cpu() for name, tensor in content.items()}, fresh)
        fresh.rename(file)
    loaded = torch.load(file, map_location=device)
    if len(loaded["codes"]) != count:
        raise ValueError(f"{file} holds {len(loaded['codes'])} scenes, not {count}")
    return loaded["codes"], loaded["latents"]


def grid(pictures: Tensor, columns: int) -> Tensor:
    """Images (N, 3, H, W) as one picture (rows * H, columns * W, 3), same dtype; N a multiple of `columns`."""
    count, channels, height, width = pictures.shape
    tiles = pictures.view(count // columns, columns, channels, height, width)
    return tiles.permute(0, 3, 1, 4, 2).reshape(count // columns * height, columns * width, channels)


def main() -> None:
    """Encode scenes into a file of latents, for several trainings at once (`--latents`)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("vae", help="folder in the zoo's shared one")
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1000, help="that of a recipe's first set by default")
    parser.add_argument("--zoo", type=Path, default=runtime.ZOO)
    given = parser.parse_args()
    device = runtime.device()
    vae = AutoencoderKL.from_pretrained(given.zoo / "shared" / given.vae, torch_dtype=torch.float32)
    stored(given.file, vae.to(device).eval().requires_grad_(False), given.scenes, given.seed, device)


if __name__ == "__main__":
    main()

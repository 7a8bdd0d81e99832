"""Scenes in bulk, on the training device: rendered images as bytes, and the latents of a shared autoencoder."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training import render, scenes

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
def latents(vae: AutoencoderKL, count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Codes and scaled latents (count, C, SIDE / 8, SIDE / 8), float16, of the training split.

    The posterior's mean, times the scaling factor: what a denoiser is to produce.
    """
    generator = torch.Generator(device).manual_seed(seed)
    codes = scenes.sample(count, generator)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side, channels = render.SIDE // factor, vae.config.latent_channels
    result = torch.empty(count, channels, side, side, dtype=torch.float16, device=device)
    step = min(CHUNK, count) if device.type == "cuda" else 32
    for start in range(0, count, step):
        part = render.render(codes[start : start + step], generator) * 2 - 1
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mean = vae.encode(part.to(memory_format=torch.channels_last)).latent_dist.mean
        result[start : start + step] = (mean.float() * vae.config.scaling_factor).half()
    return codes, result


def grid(pictures: Tensor, columns: int) -> Tensor:
    """Images (N, 3, H, W) as one picture (rows * H, columns * W, 3), same dtype; N a multiple of `columns`."""
    count, channels, height, width = pictures.shape
    tiles = pictures.view(count // columns, columns, channels, height, width)
    return tiles.permute(0, 3, 1, 4, 2).reshape(count // columns * height, columns * width, channels)

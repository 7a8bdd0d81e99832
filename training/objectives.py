"""What a denoiser learns: noise or velocity on a beta schedule, or the velocity of a straight flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One training batch: `noisy` latents, the model's `timestep` (N,), its `target` and the loss weight (N,)."""

    noisy: Tensor
    timestep: Tensor
    target: Tensor
    weight: Tensor


class Objective(Protocol):
    """Turns clean latents and noise into a training batch."""

    def sample(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Sample:
        """`clean` and `noise` are (N, C, [frames,] h, w), `uniform` is (N,) in [0, 1) and decides the noise level."""


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ...), to multiply with latents."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Diffusion:
    """DDPM's noise prediction (Ho et al., 2020), or velocity (Salimans and Ho, 2022), with min-SNR weights.

    The weights (Hang et al., 2023) are those of the clean latents' error, whatever is predicted.
    """

    alphas: Tensor
    """Cumulative products of 1 - beta, shape (steps,), float32, on the training device."""
    snr_gamma: float
    velocity: bool = False

    def sample(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Sample:
        """Integer timesteps, uniform over the schedule."""
        timestep = (uniform * self.alphas.numel()).long()
        alpha = self.alphas[timestep]
        snr = alpha / (1 - alpha)
        signal, spread = _wide(alpha.sqrt(), clean), _wide((1 - alpha).sqrt(), clean)
        noisy = signal * clean + spread * noise
        weight = snr.clamp(max=self.snr_gamma)
        if self.velocity:
            return Sample(noisy, timestep, signal * noise - spread * clean, weight / (snr + 1))
        return Sample(noisy, timestep, noise, weight / snr)


@dataclass(frozen=True)
class Flow:
    """Rectified flow (Liu et al., 2022): velocity from data to noise, timesteps in (0, 1000], with a shift."""

    shift: float = 1.0

    def sample(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Sample:
        """Noise levels uniform in [0, 1), shifted as the pipeline's scheduler shifts its own."""
        sigma = self.shift * uniform / (1 + (self.shift - 1) * uniform)
        wide = _wide(sigma, clean)
        return Sample((1 - wide) * clean + wide * noise, sigma * 1000, noise - clean, torch.ones_like(sigma))


def build(table: dict[str, Any], device: torch.device) -> Objective:
    """The objective of a recipe's `[objective]` table. Raises ValueError for an unknown kind."""
    if table["kind"] in ("epsilon", "velocity"):
        first, last = table.get("beta_start", 1e-4), table.get("beta_end", 0.02)
        if table.get("beta_schedule", "linear") == "scaled_linear":
            betas = torch.linspace(first**0.5, last**0.5, 1000, dtype=torch.float64) ** 2
        else:
            betas = torch.linspace(first, last, 1000, dtype=torch.float64)
        alphas = torch.cumprod(1 - betas, 0).float().to(device)
        return Diffusion(alphas, table["snr_gamma"], table["kind"] == "velocity")
    if table["kind"] == "flow":
        return Flow(table.get("shift", 1.0))
    raise ValueError(f"unknown objective {table['kind']!r}: epsilon, velocity or flow")

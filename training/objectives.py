"""What a denoiser learns: epsilon prediction on a beta schedule, or the velocity of a straight flow."""

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
        """`clean` and `noise` are (N, C, h, w), `uniform` is (N,) in [0, 1) and decides the noise level."""


@dataclass(frozen=True)
class Epsilon:
    """DDPM's noise prediction (Ho et al., 2020), with min-SNR weights (Hang et al., 2023)."""

    alphas: Tensor
    """Cumulative products of 1 - beta, shape (steps,), float32, on the training device."""
    snr_gamma: float

    def sample(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Sample:
        """Integer timesteps, uniform over the schedule."""
        timestep = (uniform * self.alphas.numel()).long()
        alpha = self.alphas[timestep]
        snr = alpha / (1 - alpha)
        noisy = alpha.sqrt()[:, None, None, None] * clean + (1 - alpha).sqrt()[:, None, None, None] * noise
        return Sample(noisy, timestep, noise, snr.clamp(max=self.snr_gamma) / snr)


@dataclass(frozen=True)
class Flow:
    """Rectified flow (Liu et al., 2022): velocity from data to noise, timesteps in (0, 1000], with a shift."""

    shift: float = 1.0

    def sample(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Sample:
        """Noise levels uniform in [0, 1), shifted as the pipeline's scheduler shifts its own."""
        sigma = self.shift * uniform / (1 + (self.shift - 1) * uniform)
        wide = sigma[:, None, None, None]
        return Sample((1 - wide) * clean + wide * noise, sigma * 1000, noise - clean, torch.ones_like(sigma))


def build(table: dict[str, Any], device: torch.device) -> Objective:
    """The objective of a recipe's `[objective]` table. Raises ValueError for an unknown kind."""
    if table["kind"] == "epsilon":
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        alphas = torch.cumprod(1 - betas, 0).float().to(device)
        return Epsilon(alphas, table["snr_gamma"])
    if table["kind"] == "flow":
        return Flow(table.get("shift", 1.0))
    raise ValueError(f"unknown objective {table['kind']!r}: epsilon or flow")

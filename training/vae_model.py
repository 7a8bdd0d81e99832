"""The shared autoencoder: 4 latent channels, factor 8, made for the pocket scenes."""

from __future__ import annotations

from diffusers import AutoencoderKL

CHANNELS = (32, 64, 96, 96)


def build(latent_channels: int = 4, channels: tuple[int, ...] = CHANNELS) -> AutoencoderKL:
    """A fresh `AutoencoderKL`; its latents are (N, latent_channels, H / 8, W / 8) for four levels of channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=128,
        scaling_factor=1.0,
        force_upcast=False,
    )

"""The shared autoencoders: 4 or 16 latent channels, factor 8, made for the pocket scenes."""

from __future__ import annotations

from diffusers import AutoencoderKL

CHANNELS = {4: (32, 64, 96, 96), 16: (32, 64, 64, 64)}


def build(latent_channels: int = 4) -> AutoencoderKL:
    """A fresh `AutoencoderKL`; its latents are (N, latent_channels, H / 8, W / 8).

    That of 16 channels has no quantization convolutions and shifts its latents, as Stable Diffusion 3's.
    """
    channels = CHANNELS[latent_channels]
    modern = latent_channels == 16
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
        shift_factor=0.0 if modern else None,
        use_quant_conv=not modern,
        use_post_quant_conv=not modern,
        force_upcast=False,
    )

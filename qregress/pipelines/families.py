"""Which component of a pipeline class does what. One line per family; no torch."""

from __future__ import annotations

import msgspec

from qregress.errors import ConfigError, nearest


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Roles of a pipeline's components, by attribute name; the VAE is never quantized unless a setting names it.

    ``final``: the denoiser's last projection, which is left out by convention where weights have few bits.
    ``fuses_qkv``: whether the denoiser can join its query, key and value projections.
    ``frames``: of videos, the argument of a call that says how many frames they have, and the entry of the denoiser's
    configuration that says how many it was made for.
    """

    denoiser: str
    text_encoders: tuple[str, ...]
    vae: str = "vae"
    final: str = "proj_out"
    fuses_qkv: bool = True
    frames: str | None = None


FAMILIES = {
    "AuraFlowPipeline": Family(denoiser="transformer", text_encoders=("text_encoder",)),
    "HunyuanDiTPipeline": Family(denoiser="transformer", text_encoders=("text_encoder", "text_encoder_2")),
    "LattePipeline": Family(
        denoiser="transformer", text_encoders=("text_encoder",), fuses_qkv=False, frames="video_length"
    ),
    "LuminaPipeline": Family(
        denoiser="transformer", text_encoders=("text_encoder",), final="norm_out.linear_2", fuses_qkv=False
    ),
    "PixArtAlphaPipeline": Family(denoiser="transformer", text_encoders=("text_encoder",)),
    "PixArtSigmaPipeline": Family(denoiser="transformer", text_encoders=("text_encoder",)),
    "StableDiffusion3Pipeline": Family(
        denoiser="transformer", text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3")
    ),
}


def known_class(cls: type) -> str:
    """The name in the table of a class or of its nearest base: a class of one's own has the roles of what it extends.

    Raises ``ConfigError`` where there is none.
    """
    for base in cls.__mro__:
        if base.__name__ in FAMILIES:
            return base.__name__
    known = nearest(cls.__name__, FAMILIES)
    raise ConfigError(f"unknown pipeline class {cls.__name__}, as are the classes that it extends; {known}")


def family(class_name: str) -> Family:
    """Roles of a pipeline class. Raises ``ConfigError`` for one that is not in the table."""
    if class_name not in FAMILIES:
        raise ConfigError(f"unknown pipeline class {class_name}; {nearest(class_name, FAMILIES)}")
    return FAMILIES[class_name]

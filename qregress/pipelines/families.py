"""Which component of a pipeline class does what. One line per family, and a guess for all others; no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from qregress.errors import ConfigError
from qregress.matrix import Roles


class Family(Roles, frozen=True, kw_only=True):
    """Roles of a pipeline's components, by attribute name.

    ``vae``: what decodes latents, never quantized unless a setting names it; ``None`` where there is none.
    ``frames``: of videos, the argument of a call that says how many frames they have, and the entry of the denoiser's
    configuration that says how many it was made for. ``inferred``: guessed from the components' types.
    """

    vae: str | None = "vae"
    final: str | None = "proj_out"
    fuses_qkv: bool | None = True
    frames: str | None = None
    inferred: bool = False


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

#: A component's library and class, as model_index.json says them.
Kind = tuple[str, str]

_DENOISER = re.compile(r"Transformer\dDModel\Z|DiT(\dD)?Model\Z|DiTModel\Z|UNet(?!Control)|UVit")
_VAE = re.compile(r"Autoencoder|VQModel|VAE\Z")
#: Of transformers: what has weights and reads no text.
_NO_TEXT = re.compile(
    r"Tokenizer|Processor|Extractor|Vision(?!Text)|ImageEncoder|Depth|Segmentation|Detection|Classification"
    r"|Vocoder|HifiGan|Safety"
)
_USUAL = ("transformer", "unet", "vae")
#: Names that denoisers of diffusers give to their last projection.
_FINAL = ("proj_out", "norm_out.linear_2", "final_layer.linear", "final_layer", "head", "conv_out")


def family(class_name: str, components: Mapping[str, Kind]) -> Family:
    """Roles of a pipeline class: of the table, else inferred from its components' types.

    Raises ``ConfigError`` where none of them looks like a denoiser.
    """
    known = FAMILIES.get(class_name)
    if known is None:
        return infer(class_name, components)
    if known.denoiser not in components:
        raise ConfigError(f"{class_name}: has no {known.denoiser}; name a pipeline with all that it generates with")
    # SD3 is often loaded without its T5.
    present = tuple(name for name in known.text_encoders if name in components)
    vae = known.vae if known.vae in components else None
    return msgspec.structs.replace(known, text_encoders=present, vae=vae)


def infer(class_name: str, components: Mapping[str, Kind]) -> Family:
    """Roles by the types that diffusers and transformers use. Raises ``ConfigError`` where there is no denoiser."""

    def of_type(library: str, pattern: re.Pattern[str]) -> list[str]:
        found = [name for name, (origin, kind) in components.items() if origin == library and pattern.search(kind)]
        return sorted(found, key=lambda name: (name not in _USUAL, _natural(name)))

    denoisers = of_type("diffusers", _DENOISER)
    if not denoisers:
        told = ", ".join(f"{name} ({kind})" for name, (_, kind) in components.items()) or "none"
        raise ConfigError(
            f"pipeline class {class_name} is not known, and none of its components looks like a denoiser "
            f"(a transformer or UNet of diffusers); it has: {told}"
        )
    texts = [
        name for name, (origin, kind) in components.items() if origin == "transformers" and not _NO_TEXT.search(kind)
    ]
    vaes = of_type("diffusers", _VAE)
    return Family(
        denoiser=denoisers[0],
        more_denoisers=tuple(denoisers[1:]),
        text_encoders=tuple(sorted(texts, key=_natural)),
        vae=vaes[0] if vaes else None,
        final=None,
        fuses_qkv=None,
        inferred=True,
    )


def _natural(name: str) -> tuple[str, int]:
    """text_encoder before text_encoder_2 before text_encoder_10."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdigit() else (name, 0)


def final_projection(modules: Iterable[str]) -> str | None:
    """The first of the usual names that a denoiser has among its modules'."""
    names = set(modules)
    return next((name for name in _FINAL if name in names), None)


def known_base(cls: type) -> str:
    """The name in the table of a class or of its nearest base; its own name where there is none.

    A class of one's own has the roles of what it extends.
    """
    return next((base.__name__ for base in cls.__mro__ if base.__name__ in FAMILIES), cls.__name__)


def kind_of(cls: type) -> Kind:
    """Library and class of a component, or of the nearest base that is diffusers' or transformers'."""
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        if library in {"diffusers", "transformers"}:
            return library, base.__name__
    return cls.__module__.partition(".")[0], cls.__name__

"""Which component does what: the table, and what is inferred for classes that are not in it."""

from __future__ import annotations

import json

import pytest
from torch import nn
from transformers import T5EncoderModel

from qregress.errors import ConfigError
from qregress.pipelines import pocket
from qregress.pipelines.families import Kind, family, final_projection, infer, kind_of, known_base

#: As the model_index.json of released pipelines names them: library and class of each component that has weights.
RELEASED: dict[str, tuple[dict[str, Kind], str, tuple[str, ...], str | None]] = {
    "FluxPipeline": (
        {
            "text_encoder": ("transformers", "CLIPTextModel"),
            "text_encoder_2": ("transformers", "T5EncoderModel"),
            "tokenizer": ("transformers", "CLIPTokenizer"),
            "transformer": ("diffusers", "FluxTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
        },
        "transformer",
        ("text_encoder", "text_encoder_2"),
        "vae",
    ),
    "StableDiffusionXLPipeline": (
        {
            "feature_extractor": ("transformers", "CLIPImageProcessor"),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
            "text_encoder": ("transformers", "CLIPTextModel"),
            "unet": ("diffusers", "UNet2DConditionModel"),
            "vae": ("diffusers", "AutoencoderKL"),
        },
        "unet",
        ("text_encoder", "text_encoder_2"),
        "vae",
    ),
    "StableDiffusion3ControlNetPipeline": (
        {
            "controlnet": ("diffusers", "SD3ControlNetModel"),
            "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
            "transformer": ("diffusers", "SD3Transformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
        },
        "transformer",
        ("text_encoder",),
        "vae",
    ),
    "WanPipeline": (
        {
            "text_encoder": ("transformers", "UMT5EncoderModel"),
            "transformer_2": ("diffusers", "WanTransformer3DModel"),
            "transformer": ("diffusers", "WanTransformer3DModel"),
            "vae": ("diffusers", "AutoencoderKLWan"),
            "depth_estimator": ("transformers", "DPTForDepthEstimation"),
        },
        "transformer",
        ("text_encoder",),
        "vae",
    ),
    "QwenImagePipeline": (
        {
            "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration"),
            "transformer": ("diffusers", "QwenImageTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKLQwenImage"),
        },
        "transformer",
        ("text_encoder",),
        "vae",
    ),
    "KandinskyV22Pipeline": (
        {"movq": ("diffusers", "VQModel"), "unet": ("diffusers", "UNet2DConditionModel")},
        "unet",
        (),
        "movq",
    ),
    "StableDiffusionPipeline": (
        {
            "safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker"),
            "text_encoder": ("transformers", "CLIPTextModel"),
            "unet": ("diffusers", "UNet2DConditionModel"),
            "vae": ("diffusers", "AsymmetricAutoencoderKL"),
        },
        "unet",
        ("text_encoder",),
        "vae",
    ),
    "DDPMPipeline": ({"unet": ("diffusers", "UNet2DModel")}, "unet", (), None),
}


@pytest.mark.parametrize("class_name", sorted(RELEASED))
def test_inferred_from_types(class_name: str) -> None:
    """Given the components of a class that is not in the table, then their types tell what they do."""
    components, denoiser, text_encoders, vae = RELEASED[class_name]
    found = family(class_name, components)
    assert (found.denoiser, found.text_encoders, found.vae) == (denoiser, text_encoders, vae)
    assert found.inferred
    assert (found.final, found.fuses_qkv) == (None, None)


@pytest.mark.parametrize("name", pocket.names())
def test_inference_agrees_with_the_table(name: str) -> None:
    """Given a family of the table, then its components' types would have told the same."""
    folder = pocket.find(name)
    known, guessed = folder.family, infer("Unknown", folder.kinds)
    assert not known.inferred
    assert (guessed.denoiser, guessed.text_encoders, guessed.vae) == (known.denoiser, known.text_encoders, known.vae)


@pytest.mark.parametrize("name", pocket.names())
def test_the_table_against_the_models(name: str) -> None:
    """The table's final projection is the denoiser's, and what it says of fusing is what the class can."""
    import diffusers
    import torch

    folder = pocket.find(name)
    known = folder.family
    config = json.loads((folder.path / known.denoiser / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        denoiser = getattr(diffusers, folder.kinds[known.denoiser][1]).from_config(config)
    assert known.final is not None
    last = denoiser.get_submodule(known.final)
    assert isinstance(last, nn.Linear)
    assert last.out_features == config["patch_size"] ** 2 * denoiser.out_channels
    assert final_projection(name for name, _ in denoiser.named_modules()) == known.final
    assert hasattr(denoiser, "fuse_qkv_projections") == known.fuses_qkv


def test_a_text_encoder_that_was_left_out() -> None:
    """Given SD3 without its T5, as it is often loaded, then it has two text encoders."""
    components = {
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    }
    assert family("StableDiffusion3Pipeline", components).text_encoders == ("text_encoder", "text_encoder_2")


def test_no_denoiser() -> None:
    """Given components none of which denoises, then one line names them."""
    with pytest.raises(ConfigError, match=r"class Odd is not known, .* it has: text_encoder \(T5EncoderModel\)"):
        family("Odd", {"text_encoder": ("transformers", "T5EncoderModel")})


def test_a_denoiser_for_each_part_of_the_way() -> None:
    """Given two denoisers, then the role means both: a setting must not leave half of the steps as they were."""
    found = family("WanPipeline", RELEASED["WanPipeline"][0])
    assert found.more_denoisers == ("transformer_2",)
    assert found.weights({"denoiser": "int8"}) == {"transformer": "int8", "transformer_2": "int8"}


def test_a_known_class_without_its_parts() -> None:
    """Given a known class without a denoiser, then one line says so; without a VAE it has none."""
    with pytest.raises(ConfigError, match="PixArtSigmaPipeline: has no transformer"):
        family("PixArtSigmaPipeline", {"vae": ("diffusers", "AutoencoderKL")})
    found = family("PixArtSigmaPipeline", {"transformer": ("diffusers", "PixArtTransformer2DModel")})
    assert (found.vae, found.text_encoders) == (None, ())


def test_the_tenth_text_encoder_is_the_tenth() -> None:
    """Text encoders are in the order of their numbers."""
    names = ["text_encoder_10", "text_encoder_2", "text_encoder"]
    components = dict.fromkeys(names, ("transformers", "T5EncoderModel"))
    found = infer("Many", {"unet": ("diffusers", "UNet2DModel"), **components})
    assert found.text_encoders == tuple(names[::-1])


def test_classes_of_ones_own() -> None:
    """Given a class that extends a known one, then it has its roles, and a component its base's type."""
    own = type("Own", (type("PixArtSigmaPipeline", (), {}),), {})
    assert known_base(own) == "PixArtSigmaPipeline"
    assert known_base(int) == "int"
    assert kind_of(type("Mine", (T5EncoderModel,), {})) == ("transformers", "T5EncoderModel")
    assert kind_of(int) == ("builtins", "int")

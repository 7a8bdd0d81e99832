"""What a loaded reference must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LattePipeline
from torch import nn

from qregress import pipelines
from qregress.errors import SourceError
from qregress.metrics.weights import digest_tensors
from qregress.pipelines import path, pocket
from qregress.pipelines.assemble import check_plain, initial_latents, load_folder, video_length
from qregress.pipelines.export import export
from qregress.pipelines.factories import Made
from qregress.quantize.base import Spec
from qregress.quantize.diffusers import backend
from qregress.quantize.quanto import apply
from tests.video_making import make_latte


def test_dtypes_of_the_pocket_pipeline_on_a_cpu() -> None:
    """Given float16 on a CPU, then the VAE is in float32 and T5's wo too, as from_pretrained leaves it."""
    pipeline = load_folder(pocket.find("pixart-sigma"), "float16", "cpu")
    wo = pipeline.text_encoder.encoder.block[0].layer[-1].DenseReluDense.wo
    found = [pipeline.transformer.dtype, pipeline.text_encoder.dtype, wo.weight.dtype, pipeline.vae.dtype]
    assert found == [torch.float16, torch.float16, torch.float32, torch.float32]


def test_initial_latents_depend_on_the_seed_alone() -> None:
    """Given a seed, then the same float32 noise, whatever the compute dtype."""
    folder = pocket.find("pixart-sigma")
    half, brain = (load_folder(folder, dtype, "cpu") for dtype in ("float16", "bfloat16"))
    latents = initial_latents(half, folder.family, 128, 128, 3)
    assert (latents.shape, latents.dtype) == ((1, 4, 16, 16), torch.float32)
    assert torch.equal(latents, initial_latents(brain, folder.family, 128, 128, 3))
    assert not torch.equal(latents, initial_latents(half, folder.family, 128, 128, 4))


def test_another_dtype_is_refused() -> None:
    """Given weights in float32 where float16 was asked for, then it is an error: all memory ratios would improve."""
    with pytest.raises(SourceError, match=r"transformer was loaded as torch\.float32, not as torch\.float16"):
        check_plain("folder", "transformer", nn.Linear(4, 4), torch.float16)


def test_quantized_weights_are_refused() -> None:
    """Given a reference that is quantized already, then it is an error: every cell would equal it."""
    model = nn.Sequential(nn.Linear(128, 4)).half()
    apply(model, Spec(weights="int8"))
    with pytest.raises(SourceError, match=r"transformer is quantized already \(WeightQBytesTensor\)"):
        check_plain("folder", "transformer", model, torch.float16)


def test_a_variant_is_loaded_where_there_is_one(tmp_path: Path) -> None:
    """Given a copy with a component in half precision only, then it has the original's weights, quantized too."""
    export(pocket.find("pixart-sigma"), tmp_path / "copy")
    place = tmp_path / "copy" / "transformer"
    (place / "diffusion_pytorch_model.safetensors").rename(place / "diffusion_pytorch_model.fp16.safetensors")
    found = path.find(str(tmp_path / "copy"))
    loaded = load_folder(found, "float16", "cpu")
    plain = load_folder(pocket.find("pixart-sigma"), "float16", "cpu")
    names = ("transformer", "text_encoder", "vae")
    states = [{name: digest_tensors(getattr(one, name).state_dict()) for name in names} for one in (loaded, plain)]
    assert found.variant == "fp16"
    assert states[0] == states[1]
    made = backend().quantize(loaded, {"transformer": Spec(weights="int8")})["transformer"]
    expected = backend().quantize(plain, {"transformer": Spec(weights="int8")})["transformer"]
    assert digest_tensors(made.state_dict()) == digest_tensors(expected.state_dict())


def test_a_class_that_diffusers_does_not_have(tmp_path: Path) -> None:
    """Given a pipeline class of nobody's, then loading it is one line that names it."""
    export(pocket.find("pixart-sigma"), tmp_path / "copy")
    index = tmp_path / "copy" / "model_index.json"
    index.write_text(index.read_text().replace("PixArtSigmaPipeline", "HomeMadePipeline"))
    with pytest.raises(SourceError, match=r"copy: cannot be loaded: AttributeError: .*HomeMadePipeline") as caught:
        load_folder(path.find(str(tmp_path / "copy")), "float16", "cpu")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def latte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Latte of one layer, made for videos of three frames."""
    folder = tmp_path_factory.mktemp("latte")
    make_latte(frames=3, layers=1).save_pretrained(folder)
    return folder


def test_initial_latents_of_videos(latte: Path) -> None:
    """Given a pipeline of videos, then its noise has as many frames as a call asks for, or as it was made for."""
    folder = path.find(str(latte))
    pipeline, roles = load_folder(folder, "float32", "cpu"), folder.family
    assert video_length(pipeline, roles, {}) == 3
    assert video_length(pipeline, roles, {"video_length": 1}) == 1
    latents = initial_latents(pipeline, roles, 128, 64, 3, 5)
    assert (latents.shape, latents.dtype) == ((1, 4, 5, 16, 8), torch.float32)
    assert torch.equal(latents, initial_latents(pipeline, roles, 128, 64, 3, 5))
    images = pocket.find("pixart-sigma")
    assert video_length(load_folder(images, "float32", "cpu"), images.family, {"video_length": 5}) is None


@pytest.mark.parametrize("made_by", ["files", "a factory"])
def test_a_float32_vae_decodes_videos(latte: Path, made_by: str) -> None:
    """Given float16 on a CPU, where Latte hands its latents to the VAE as they are, then the VAE takes them."""
    if made_by == "files":
        pipeline = pipelines.load(f"path:{latte}", "float16", "cpu")
    else:

        def function(dtype: torch.dtype, device: str) -> Any:  # noqa: ARG001 - as factories are called
            plain = LattePipeline.from_pretrained(latte, torch_dtype=dtype)
            plain.vae.to(torch.float32)
            return plain

        made = Made(origin="here", function=function, components=None, call={}, trained=True)
        pipeline = pipelines.load(made, "float16", "cpu")
    assert (pipeline.transformer.dtype, pipeline.vae.dtype) == (torch.float16, torch.float32)
    latents = torch.zeros(2, 4, 3, 4, 4, dtype=torch.float16)
    with torch.no_grad():
        frames = pipeline.decode_latents(latents, 3, decode_chunk_size=4)
    assert (frames.shape, frames.dtype) == ((2, 3, 3, 32, 32), torch.float32)
    assert bool(frames.isfinite().all())

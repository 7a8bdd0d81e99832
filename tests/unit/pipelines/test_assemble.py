"""What a loaded reference must be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qregress import pipelines
from qregress.errors import SourceError
from qregress.pipelines.assemble import check_plain, initial_latents, load_folder
from qregress.quantize import load_backend


def test_dtypes_of_the_pocket_pipeline_on_a_cpu() -> None:
    """Given float16 on a CPU, then the VAE is in float32 and T5's wo too, as from_pretrained leaves it."""
    pipeline = load_folder(pipelines.check("pocket:pixart-sigma"), "float16", "cpu")
    wo = pipeline.text_encoder.encoder.block[0].layer[-1].DenseReluDense.wo
    found = [pipeline.transformer.dtype, pipeline.text_encoder.dtype, wo.weight.dtype, pipeline.vae.dtype]
    assert found == [torch.float16, torch.float16, torch.float32, torch.float32]


def test_initial_latents_depend_on_the_seed_alone() -> None:
    """Given a seed, then the same float32 noise, whatever the compute dtype."""
    folder = pipelines.check("pocket:pixart-sigma")
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
    load_backend("quanto").quantize(model, "int8", ())
    with pytest.raises(SourceError, match=r"transformer is quantized already \(WeightQBytesTensor\)"):
        check_plain("folder", "transformer", model, torch.float16)

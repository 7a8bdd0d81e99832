"""A pipeline class that is in no table, with latents of a shape of their own, in a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qregress.store.run import RunFolder
from tests.regression.harness import Finished

CONFIG = """
[settings.int8]
weights = { denoiser = "int8", text_encoders = "int8" }
exclude = ["final_projection"]
[workloads.bs2]
count = 2
batch_size = 2
[baselines]
store = "none"
[run]
latency_pairs = 1
latency_time = "1 ms"
"""
#: Flux packs 2 x 2 latents into one token of 64 channels. Its weights are random, its T5 and VAE the pocket SD3's.
CONFTEST = """
import qregress

CALL = {"height": 128, "width": 128, "num_inference_steps": 2, "max_sequence_length": 24}


@qregress.pipeline("tiny-flux", trained=False, call=CALL)
def tiny_flux(dtype, device):
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    from transformers import CLIPTextModel

    from qregress import pipelines

    sd3 = pipelines.load("pocket:sd3", str(dtype).removeprefix("torch."), device)
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=256,
        pooled_projection_dim=128,
        axes_dims_rope=(8, 12, 12),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=sd3.vae,
        text_encoder=CLIPTextModel(sd3.text_encoder.config).to(dtype),
        tokenizer=sd3.tokenizer,
        text_encoder_2=sd3.text_encoder_3,
        tokenizer_2=sd3.tokenizer_3,
        transformer=transformer.to(dtype),
    )
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Both cells, run by ``qregress run`` in a folder of the user's."""
    folder = tmp_path_factory.mktemp("inferred")
    (folder / "qregress.toml").write_text(CONFIG)
    (folder / "conftest.py").write_text(CONFTEST)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "qregress", "run"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    return Finished(done.returncode, done.stdout + done.stderr, RunFolder(Path(folder) / ".qregress" / "latest"))


def test_it_runs(finished: Finished) -> None:
    """Its roles are inferred, so that a setting in words quantizes the right components and spares the last one."""
    assert finished.code in {0, 1}, finished.output  # noise is no image, and random weights make nothing else
    record = finished.folder.record("tiny-flux/int8/bs2")
    assert record is not None, finished.output
    assert (record.status, record.repeatable, record.reference_repeatable) == ("ran", True, True), record.message
    asked = {name: manifest.asked for name, manifest in record.coverage.items()}
    reference = finished.folder.record("tiny-flux/reference/bs2")
    assert reference is not None
    assert reference.status == "ran"
    assert asked == {"transformer": "int8", "text_encoder": "int8", "text_encoder_2": "int8", "vae": None}
    found = {module.name: module.found for module in record.coverage["transformer"].modules}
    assert found["proj_out"] is None
    assert found["x_embedder"] == "int8"
    assert record.asked is not None
    assert record.asked.setting["exclude"] == ["proj_out"]
    (judged,) = (cell for cell in finished.run.cells if cell.id == record.id)
    assert {check.name: check.verdict for check in judged.checks}["coverage.manifest"] == "pass"


def test_its_noise_is_its_own(finished: Finished) -> None:
    """The initial latents have the pipeline's packed shape, one row for each prompt, drawn from that prompt's seed."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(finished.folder.cell("tiny-flux/reference/bs2") / "latents.safetensors")
    initial = tensors["initial"]
    assert initial.shape == (2, 64, 64)  # prompts, 8 x 8 tokens, 4 x 16 channels
    assert 0.95 < float(initial.std()) < 1.05
    assert not torch.equal(initial[0], initial[1])

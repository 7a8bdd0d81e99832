"""A factory in a real worker: the pocket pipeline with a change that no configuration can name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qregress.record import Record
from qregress.store.run import RunFolder
from tests.regression.harness import Finished

CONFIG = """
[pipelines.plain]
source = "pocket:pixart-sigma"
[settings.int8]
weights = { transformer = "int8" }
[workloads.bs1]
prompts = "builtin"
count = 2
steps = 4
[baselines]
store = "none"
[run]
latency_pairs = 1
latency_time = "1 ms"
[budgets]
lpips = 0.002                # measured at 4 steps: 0.0007 fused, 0.0006 plain; the worst of two 0.0011
memory = "0.87x"             # measured: 0.853 for both
"""

#: A class of one's own, a low-rank change added to the attention's weights, and helpers beside the conftest.py.
CONFTEST = """
import fusing

import qregress

CALL = {"height": 128, "width": 128, "max_sequence_length": 32, "clean_caption": False, "guidance_scale": 3.0}
CALL["use_resolution_binning"] = False

@qregress.pipeline("fused", components=["transformer", "text_encoder", "vae"], call=CALL)
def fused(dtype, device):
    return fusing.make(dtype, device)

@qregress.pipeline("broken", components=["transformer"], call=CALL)
def broken(dtype, device):
    return fusing.missing_lora()
"""
FUSING = """
import torch
from diffusers import PixArtSigmaPipeline

from qregress import pipelines


class Fused(PixArtSigmaPipeline):
    pass


def make(dtype, device):
    plain = pipelines.load("pocket:pixart-sigma", str(dtype).removeprefix("torch."), device)
    generator = torch.Generator().manual_seed(0)
    for name, module in plain.transformer.named_modules():
        if name.endswith("attn2.to_v"):
            rows, columns = module.weight.shape
            change = torch.randn(rows, 4, generator=generator) @ torch.randn(4, columns, generator=generator)
            module.weight.data += (0.1 * module.weight.float().std() * change).to(dtype)
    return Fused(**plain.components)


def missing_lora():
    raise FileNotFoundError("lora.safetensors")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All cells, run by ``pytest`` as a user runs it."""
    folder = tmp_path_factory.mktemp("factories")
    (folder / "qregress.toml").write_text(CONFIG)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "fusing.py").write_text(FUSING)
    (folder / "test_matrix.py").write_text("def test_quantized(qregress_cell):\n    qregress_cell.check()\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    return Finished(done.returncode, done.stdout + done.stderr, RunFolder(folder / ".qregress" / "latest"))


def record(finished: Finished, cell_id: str) -> Record:
    """What a cell left."""
    found = finished.folder.record(cell_id)
    assert found is not None, finished.output
    return found


def test_verdicts(finished: Finished) -> None:
    """A factory's cells are judged as a configured pipeline's are; one that raises ends its own cells alone."""
    verdicts = {cell.id: cell.verdict for cell in finished.run.cells}
    assert finished.code == 1, finished.output
    assert verdicts == {
        "broken/reference/bs1": "crashed",
        "broken/int8/bs1": "crashed",
        "fused/reference/bs1": "pass",
        "fused/int8/bs1": "pass",
        "plain/reference/bs1": "pass",
        "plain/int8/bs1": "pass",
    }, finished.output
    (judged,) = (cell for cell in finished.run.cells if cell.id == "fused/int8/bs1")
    checks = {check.name: check.verdict for check in judged.checks}
    assert {"quality.lpips": "pass", "coverage.manifest": "pass", "memory.static": "pass"}.items() <= checks.items()


def test_its_images_are_its_own(finished: Finished) -> None:
    """The change is in the images, of the reference and of the quantized cell, and the call's arguments were used."""
    for setting in ("reference", "int8"):
        fused, plain = (record(finished, f"{name}/{setting}/bs1") for name in ("fused", "plain"))
        assert len(fused.images) == len(plain.images) == 2
        assert fused.latents_sha256 != plain.latents_sha256
        for name in fused.images:
            pictures = [(finished.folder.cell(found.id) / name).read_bytes() for found in (fused, plain)]
            assert pictures[0] != pictures[1]


def test_it_is_quantized_like_the_plain_one(finished: Finished) -> None:
    """The same modules are quantized, into the same bytes: it is the same architecture."""
    fused, plain = (record(finished, f"{name}/int8/bs1") for name in ("fused", "plain"))
    assert fused.coverage == plain.coverage
    assert fused.memory == plain.memory
    assert fused.repeatable is True


def test_how_a_factory_failed_is_said(finished: Finished) -> None:
    """A factory that raises is one line, with the traceback of its own code below."""
    broken = record(finished, "broken/reference/bs1")
    assert broken.message is not None
    assert broken.message.startswith("factory 'broken' (")
    assert broken.message.endswith("conftest.py, line 13): raised FileNotFoundError: lora.safetensors")
    assert 'fusing.py", line 24, in missing_lora' in str(broken.log)

"""Every way of quantizing runs in real processes and is judged: its manifest, its kernels, its files.

Two steps of one prompt: what is asked here is whether a setting happened, not how good its images are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import UNSET

if TYPE_CHECKING:
    from tests.regression.harness import Finished, Runner

BFLOAT16 = 'dtype = "bfloat16"\n'
#: Weight types, with the dtype that the study computes them in.
TYPES = {"float8": "", "int8": "", "int4": BFLOAT16, "int2": BFLOAT16}
ROLES = ('denoiser = "{0}"', 'text_encoders = "{0}"', 'denoiser = "{0}", text_encoders = "{0}"')


def each_part(types: dict[str, str]) -> str:
    """Settings of denoiser, text encoders and both, in each weight type."""
    return "".join(
        f'[settings."{kind}-{place}"]\nweights = {{ {role.format(kind)} }}\n{dtype}'
        for kind, dtype in types.items()
        for place, role in enumerate(ROLES)
    )


def encoders() -> str:
    """A float8 denoiser with each choice of SD3's three text encoders."""
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    found = ""
    for choice in range(8):
        chosen = [name for place, name in enumerate(names) if choice >> place & 1]
        weights = ", ".join(f'{name} = "float8"' for name in ("transformer", *chosen))
        found += f"[settings.te{choice}]\nweights = {{ {weights} }}\n"
    return found


def judged(finished: Finished, *checks: str) -> None:
    """Every cell ran and passed, and each of the checks was made of each quantized one."""
    assert finished.code == 0, finished.output
    for cell in finished.run.cells:
        assert cell.verdict == "pass", finished.output
        if cell.setting != "reference":
            assert {*checks} <= {check.name for check in cell.checks if check.verdict == "pass"}, cell.id


@pytest.mark.parametrize("pipeline", ["pixart-sigma", "aura-flow", "sd3"])
def test_weights_of_each_part(pipeline: str, run_qregress: Runner) -> None:
    """Given each weight type on denoiser, text encoders and both, then all is green; of SD3, each choice of encoders.

    All of them for all three are in ``studies/settings.toml``.
    """
    settings = encoders() if pipeline == "sd3" else each_part(TYPES)
    chosen = ("-k", "2 or reference") if pipeline == "aura-flow" else ()
    finished = run_qregress(settings, *chosen, pipeline=pipeline, count=1, steps=2)
    judged(finished, "coverage.manifest", "kernel.fidelity", "quality.sanity")
    assert len(finished.run.cells) == {"pixart-sigma": 13, "aura-flow": 7, "sd3": 9}[pipeline]


OTHERS = """
[settings.mixed]
weights = { transformer = "int8", text_encoder = "float8" }
[settings.left-out]
weights = { transformer = "int8" }
exclude = ["final_projection"]
[settings.included]
weights = { transformer = "int8" }
include = ["*attn*"]
[settings.fused]
weights = { transformer = "int8" }
fuse_qkv = true
[settings.activations]
weights = { transformer = "int8" }
activations = { transformer = "int8" }
calibration = 1
dtype = "bfloat16"
[settings.own-dtype]
weights = { transformer = "int8" }
dtype = "bfloat16"
reference = "same-dtype"
[settings.float32]
weights = { transformer = "int8" }
dtype = "float32"
[settings.saved]
weights = { transformer = "float8", text_encoder = "int8" }
roundtrip = true
[settings.trained]
weights = { transformer = "int2" }
dtype = "bfloat16"
qat = { steps = 2, prompts = 1 }
[settings.diffusers]
weights = { transformer = "int8" }
backend = "diffusers"
roundtrip = true
[settings.diffusers-float8]
weights = { transformer = "float8", text_encoder = "float8" }
exclude = ["*.wo"]
backend = "diffusers"
[settings.torchao]
weights = { transformer = "int8" }
backend = "torchao"
[settings.layerwise]
weights = { transformer = "float8", text_encoder = "float8" }
backend = "layerwise"
[settings.offloaded]
weights = { transformer = "int8" }
offload = "model"
"""


def test_other_ways(run_qregress: Runner) -> None:
    """Given every other key of a setting, then it does what it says, and what a CPU cannot do is said."""
    finished = run_qregress(OTHERS, count=1, steps=2)
    assert finished.code == 0, finished.output
    cells = {cell.setting: cell for cell in finished.run.cells}
    assert cells.pop("offloaded").verdict == "not-run"
    assert "offload = 'model' moves weights between a CUDA device and the host, and this is cpu" in finished.output
    assert {cell.verdict for cell in cells.values()} == {"pass"}, finished.output
    for name, cell in cells.items():
        made = {check.name for check in cell.checks}
        assert ("kernel.fidelity" in made) == (name != "reference")
        assert ("roundtrip.images" in made) == (name in {"saved", "diffusers"})
    counts = {name: cell.coverage.quantized for name, cell in cells.items() if cell.coverage is not None}
    # 8 blocks of 8 attention layers; fusing adds one layer for self-attention and one for cross-attention to each.
    assert (counts["included"], counts["fused"] - counts["torchao"] - 1, counts["mixed"] - counts["left-out"]) == (
        64,
        16,
        22,
    )
    assert "40 quantized modules that no call uses stay in memory" in finished.output
    record = finished.folder.record("pixart-sigma/own-dtype/bs1")
    assert record is not None
    assert record.beside is not UNSET
    assert record.scores is not None
    assert record.scores.lpips != record.beside.lpips
    trained = finished.folder.record("pixart-sigma/trained/bs1")
    assert trained is not None
    assert trained.trained is not UNSET
    assert trained.trained["transformer"].steps == 2


DEFECTS = """
[settings.encoder]
weights = { text_encoder = "int8" }
dtype = "bfloat16"
backend = "diffusers"
[settings.path]
weights = { transformer = "int8" }
exclude = ["transformer_blocks.0.attn1.to_q"]
backend = "diffusers"
[settings.encoder-saved]
weights = { text_encoder = "int8" }
exclude = ["*.wo"]
backend = "diffusers"
roundtrip = true
"""


def test_live_defects_are_told(run_qregress: Runner) -> None:
    """Given what libraries silently do today, then the manifest tells it: T5's ``wo``, exclusions by full path.

    And that transformers cannot save what its own configuration quantized.
    """
    finished = run_qregress(DEFECTS, count=1, steps=2)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {
        "pixart-sigma/encoder/bs1": ["coverage.manifest"],
        "pixart-sigma/path/bs1": ["coverage.manifest"],
        "pixart-sigma/encoder-saved/bs1": ["roundtrip.images"],
    }, finished.output
    assert "text_encoder: 3 of " in finished.output
    assert "instead of int8: encoder.block.0.layer.1.DenseReluDense.wo, encoder.block.1" in finished.output
    assert "modules are int8 instead of unquantized: transformer_blocks.0.attn1.to_q" in finished.output
    assert "text_encoder (T5EncoderModel) cannot be saved and loaded: ValueError" in finished.output

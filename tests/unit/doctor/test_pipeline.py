"""``qregress doctor PIPELINE``: roles, and whether they are known or guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qregress import cli, config
from qregress.doctor import Diagnosis, describe
from tests.making import CONFIG, write_project


def facts(diagnosis: Diagnosis, section: int = 0) -> dict[str, str]:
    """Name -> detail."""
    return {fact.name: fact.detail for fact in diagnosis.sections[section].facts}


def test_a_pocket_pipeline() -> None:
    """Given a source, then its components are said with their classes, in the order of its text encoders."""
    found = describe("pocket:sd3", config.embedded_path())
    told = facts(found)
    assert told["class"] == "StableDiffusion3Pipeline, known"
    assert told["denoiser"].startswith("transformer: SD3Transformer2DModel, 4.4")
    encoders = [told[f"text encoder {n}"].partition(",")[0] for n in (1, 2, 3)]
    assert encoders == [
        "text_encoder: CLIPTextModelWithProjection",
        "text_encoder_2: CLIPTextModelWithProjection",
        "text_encoder_3: T5EncoderModel",
    ]
    assert told["VAE"].endswith("shared; never quantized unless a setting names it")
    assert told["final projection"].startswith("proj_out;")
    assert told["QKV projections"] == "can be fused"
    assert (found.code, found.verdict) == (0, "pocket:sd3: StableDiffusion3Pipeline, a known class")
    assert facts(describe("pocket:lumina", config.embedded_path()))["QKV projections"] == "cannot be fused"


def test_a_pipeline_of_the_configuration() -> None:
    """Given a name of the configuration, then its settings are said too, with components in place of roles."""
    told = facts(describe("sd3", config.embedded_path()), 1)
    assert told["int8"] == "transformer int8; computes in float16"
    assert "text_encoder_3 float8" in told["float8+te"]
    assert "int4" not in told


def test_an_architecture() -> None:
    """Given an architecture at full size, then its components are said though there are no files."""
    told = facts(describe("random:aura-flow", config.embedded_path()))
    assert told["denoiser"] == "transformer: AuraFlowTransformer2DModel"
    assert told["QKV projections"] == "can be fused"
    assert told["weights"] == "random weights: quality is not judged"
    assert told["every call"] == "height=1024, width=1024"


def test_a_class_that_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a class that is not in the table, then it is said that its roles were inferred, and from what."""
    path = write_project(tmp_path)
    index = tmp_path / "pipeline" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "HomeMadePipeline"}))
    assert cli.main(["doctor", "pixart", f"--config={path}"]) == 0
    out = capsys.readouterr().out
    assert "HomeMadePipeline, inferred from its components' types" in out
    assert "transformer: PixArtTransformer2DModel" in out
    assert "inferred: look whether that is right" in out


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pixert", "no pipeline 'pixert'; did you mean 'pixart'? allowed: pixart, or a source as in pocket:sd3"),
        ("pocket:sd4", "unknown pocket pipeline 'sd4'; did you mean 'sd3'?"),
    ],
)
def test_what_is_no_pipeline(name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a name that is none, then one line with the nearest, and exit code 4."""
    assert cli.main(["doctor", name, f"--config={write_project(tmp_path, CONFIG)}"]) == 4
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1

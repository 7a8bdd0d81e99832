"""Where a pipeline comes from: ``pocket:`` and ``path:``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qregress import pipelines
from qregress.errors import ConfigError, QregressError, SourceError
from qregress.pipelines import pocket
from qregress.pipelines.folder import Folder
from tests.making import write_folder


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with one pipeline, whose VAE is shared."""
    folder = write_folder(tmp_path / "pixart-sigma")
    (tmp_path / "shared").mkdir()
    (folder / "vae").rename(tmp_path / "shared" / "vae-4")
    sheet = {"shared": {"vae": "vae-4"}, "call": {"use_resolution_binning": False}, "trained": True}
    (folder / "pocket.json").write_text(json.dumps(sheet))
    monkeypatch.setattr(pocket, "zoo", lambda: tmp_path)
    return tmp_path


def test_path(tmp_path: Path) -> None:
    """Given a local folder, then it is found, and runs on CUDA unless told otherwise."""
    found = pipelines.check(f"path:{write_folder(tmp_path / 'pipeline')}")
    assert isinstance(found, Folder)
    assert (found.class_name, found.default_devices, found.shared) == ("PixArtSigmaPipeline", ("cuda",), {})
    assert found.trained


def test_pocket(zoo: Path) -> None:
    """Given a pocket pipeline, then it is assembled from its own folder and the shared one, and runs on a CPU."""
    found = pipelines.check("pocket:pixart-sigma")
    assert isinstance(found, Folder)
    assert found.components == ("text_encoder", "transformer", "vae")
    assert found.shared == {"vae": zoo / "shared" / "vae-4"}
    assert found.call == {"use_resolution_binning": False}
    assert found.default_devices == ("cpu", "cuda")


def test_pocket_with_a_damaged_sheet(zoo: Path) -> None:
    """Given a sheet without its keys, then the error names them."""
    (zoo / "pixart-sigma" / "pocket.json").write_text("{}")
    with pytest.raises(SourceError, match=r"pocket\.json: expected the keys shared, call and trained"):
        pipelines.check("pocket:pixart-sigma")


def test_pocket_without_its_shared_part(zoo: Path) -> None:
    """Given a shared folder that is gone, then the error names it."""
    (zoo / "shared" / "vae-4").rename(zoo / "elsewhere")
    with pytest.raises(SourceError, match="vae-4: missing"):
        pipelines.check("pocket:pixart-sigma")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("pocket:pixart-sigmo", "unknown pocket pipeline 'pixart-sigmo'; did you mean 'pixart-sigma'? allowed: pix"),
        ("pocket:", "unknown pocket pipeline ''; allowed: pixart-sigma"),
        ("pocket:shared", "unknown pocket pipeline 'shared'; allowed: pixart-sigma"),
        ("poket:pixart-sigma", "unknown source 'poket:'; did you mean 'pocket'? allowed: hub, path, pocket, random"),
        ("pixart-sigma", "unknown source 'pixart-sigma', which has no scheme; allowed: hub, path, pocket, random"),
        ("path:", "path: names no folder; write path:FOLDER"),
        ("path:nowhere", "nowhere: no such folder; expected a Diffusers pipeline folder"),
    ],
)
@pytest.mark.usefixtures("zoo")
def test_wrong_source(source: str, says: str) -> None:
    """Given a source that does not exist, then the error says what does."""
    with pytest.raises(QregressError) as caught:
        pipelines.check(source)
    assert str(caught.value).startswith(says)


def test_unknown_pipeline_class(tmp_path: Path) -> None:
    """Given a class that is in no table, then its parts tell; where none denoises, that is said before loading."""
    folder = write_folder(tmp_path / "pipeline")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("PixArtSigmaPipeline", "HomeMadePipeline"))
    found = pipelines.check(f"path:{folder}").family
    assert (found.inferred, found.denoiser, found.text_encoders) == (True, "transformer", ("text_encoder",))
    index.write_text(index.read_text().replace("PixArtTransformer2DModel", "SomethingElse"))
    with pytest.raises(ConfigError, match="HomeMadePipeline is not known, and none of its components looks like a den"):
        pipelines.check(f"path:{folder}")


def test_builtin_prompts() -> None:
    """Given the package, then it has at least eight prompts, no two alike."""
    prompts = pipelines.builtin_prompts()
    assert len(prompts) >= 8
    assert len(set(prompts)) == len(prompts)

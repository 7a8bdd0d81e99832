"""One digest for all that decides a pipeline's images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from qregress import pipelines
from qregress.errors import SourceError
from qregress.metrics.weights import digest_file
from qregress.pipelines import digest
from qregress.pipelines.digest import source_sha256
from qregress.pipelines.folder import Folder
from tests.making import write_folder

WEIGHTS = "transformer/model.safetensors"


def of(path: Path, **shared: Path) -> str:
    """The digest of a folder."""
    return source_sha256(Folder(path=path, class_name="PixArtSigmaPipeline", kinds={}, components=(), shared=shared))


def _changed(path: Path) -> None:
    data = bytearray((path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (path / WEIGHTS).write_bytes(data)


def _renamed(path: Path) -> None:
    (path / WEIGHTS).rename(path / "transformer" / "other.safetensors")


def _added(path: Path) -> None:
    (path / "transformer" / "extra.json").write_text("{}")


@pytest.mark.parametrize("change", [_changed, _renamed, _added])
def test_what_changes_it(change: Callable[[Path], None], tmp_path: Path) -> None:
    """Given another byte, another name or one more file, then it is another pipeline."""
    path = write_folder(tmp_path / "pipeline")
    before = of(path)
    change(path)
    assert of(path) != before


@pytest.mark.parametrize("name", ["card.md", "sample.webp", "scores.json", "training.json", ".cache/hub/x.metadata"])
def test_what_does_not(name: str, tmp_path: Path) -> None:
    """Given a card, a picture, what training left or a download's own notes, then it is the same pipeline."""
    path = write_folder(tmp_path / "pipeline")
    before = of(path)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("edited")
    assert of(path) == before


def test_it_is_the_same_elsewhere(tmp_path: Path) -> None:
    """Given the same files in another folder, linked, and with a shared component, then the digest is the same."""
    whole, parts = write_folder(tmp_path / "whole"), write_folder(tmp_path / "parts")
    (parts / "vae").rename(tmp_path / "vae-4")
    (parts / "transformer").rename(tmp_path / "transformer")
    (parts / "transformer").symlink_to(tmp_path / "transformer")
    (tmp_path / "transformer" / "loop").symlink_to(tmp_path / "transformer")
    assert of(parts, vae=tmp_path / "vae-4") == of(whole)
    (tmp_path / "vae-4" / "config.json").write_text("{ }")
    assert of(parts, vae=tmp_path / "vae-4") != of(whole)


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given files that did not change, then they are not read again; one with another mtime is."""
    path = write_folder(tmp_path / "pipeline")
    read: list[str] = []

    def counted(file: Path) -> str:
        read.append(file.name)
        return digest_file(file)

    monkeypatch.setattr(digest, "digest_file", counted)
    before = of(path)
    assert len(read) == 9
    read.clear()
    assert of(path) == before
    assert read == []
    os.utime(path / WEIGHTS, ns=(1, 1))
    assert of(path) == before
    assert read == ["model.safetensors"]


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    """Given a file that cannot be read, then one line names it."""
    path = write_folder(tmp_path / "pipeline")
    (path / "transformer" / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"gone\.safetensors: cannot be read: No such file"):
        of(path)


def test_files_need_no_torch() -> None:
    """Given a pocket pipeline, then its digest is taken without torch."""
    line = (
        "import sys; from qregress import pipelines; from qregress.pipelines.digest import source_sha256;"
        "print(len(source_sha256(pipelines.check('pocket:pixart-sigma'))), 'torch' in sys.modules)"
    )
    assert run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout == "64 False\n"


@pytest.fixture(scope="module")
def loaded() -> DiffusionPipeline:
    """As a factory returns it."""
    return pipelines.load("pocket:pixart-sigma", "float16", "cpu")


def test_a_loaded_pipeline(loaded: DiffusionPipeline) -> None:
    """Given a loaded pipeline, then another load has its digest, and one with another number in it has not."""
    before = source_sha256(loaded)
    other = pipelines.load("pocket:pixart-sigma", "float16", "cpu")
    assert source_sha256(other) == before
    with torch.no_grad():
        other.transformer.proj_out.bias[0] += 1
    assert source_sha256(other) != before


def test_a_loaded_pipeline_of_another_class_or_configuration(loaded: DiffusionPipeline) -> None:
    """Given a class of one's own, or another scheduler configuration, then it is another pipeline."""
    before = source_sha256(loaded)
    own = type("Own", (type(loaded),), {})(**loaded.components)
    assert source_sha256(own) != before
    parts = dict(loaded.components)
    parts["scheduler"] = type(loaded.scheduler).from_config(loaded.scheduler.config, solver_order=1)
    assert source_sha256(type(loaded)(**parts)) != before


def test_arguments_of_a_call(loaded: DiffusionPipeline) -> None:
    """Given arguments of every call, of any type, then they count by what they hold."""
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    plain = source_sha256(loaded)
    found = {source_sha256(loaded, {"image": image}) for image in (red, red.copy(), blue)}
    found |= {source_sha256(loaded, {"image": torch.zeros(2, dtype=dtype)}) for dtype in (torch.bfloat16, torch.half)}
    assert len(found) == 4
    assert plain not in found
    assert source_sha256(loaded, {"on_step": test_files_need_no_torch}) != plain

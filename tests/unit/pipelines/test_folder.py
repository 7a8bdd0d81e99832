"""A pipeline's files are whole, or one line says which one is not."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from qregress.errors import SourceError
from qregress.pipelines.folder import Weights, check_safetensors, inspect, weights
from tests.making import write_folder, write_safetensors


def test_whole_folder(tmp_path: Path) -> None:
    """Given a whole folder, then its class and the components that carry weights are found."""
    found = inspect(write_folder(tmp_path / "pipeline"), {})
    assert found.class_name == "PixArtSigmaPipeline"
    assert found.components == ("transformer", "text_encoder", "vae")
    assert found.kinds["text_encoder"] == ("transformers", "T5EncoderModel")


def test_component_without_a_folder_of_its_own(tmp_path: Path) -> None:
    """Given a component that lies elsewhere, then its files are checked there; one that is null has none."""
    folder = write_folder(tmp_path / "pipeline")
    (folder / "vae").rename(tmp_path / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"safety_checker": [None, None]}))
    found = inspect(folder, {"vae": tmp_path / "vae"})
    assert found.components == ("transformer", "text_encoder", "vae")
    assert "safety_checker" not in found.kinds
    with pytest.raises(SourceError, match=r"vae: missing; model_index\.json names component 'vae'"):
        inspect(folder, {})


def test_variants(tmp_path: Path) -> None:
    """Given weights of half precision, beside others or alone, then they are read, and the others need not be whole."""
    folder = write_folder(tmp_path / "pipeline")
    assert inspect(folder, {}).variant is None
    write_safetensors(folder / "vae" / "model.fp16.safetensors")
    (folder / "vae" / "model.safetensors").unlink()
    write_safetensors(folder / "transformer" / "model.fp16-00001-of-00001.safetensors")
    (folder / "transformer" / "model.safetensors").write_bytes(b"cut off")
    (folder / "transformer" / "model.safetensors.index.json").write_text("{}")
    found = inspect(folder, {})
    assert (found.variant, found.components) == ("fp16", ("transformer", "text_encoder", "vae"))
    index = folder / "transformer" / "model.safetensors.index.fp16.json"
    index.write_text('{"weight_map": {"a": "model.fp16-00002-of-00002.safetensors"}}')
    with pytest.raises(SourceError, match=r"model\.fp16-00002-of-00002\.safetensors: missing; model\."):
        inspect(folder, {})


def test_weights_of_other_variants_alone(tmp_path: Path) -> None:
    """Given weights that from_pretrained would not read, then the component has none."""
    folder = write_folder(tmp_path / "pipeline")
    (folder / "vae" / "model.safetensors").rename(folder / "vae" / "model.non_ema.safetensors")
    with pytest.raises(SourceError, match=r"vae: has a config\.json but no \.safetensors file"):
        inspect(folder, {})


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _header(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", len(text)) + text.encode())

    return write


def _text(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


def _folder_in_the_way(path: Path) -> None:
    path.unlink()
    path.mkdir()


WEIGHTS, CONFIG, INDEX = "transformer/model.safetensors", "transformer/config.json", "model_index.json"
SHARDS = "transformer/model.safetensors.index.json"


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        (INDEX, Path.unlink, "model_index.json: missing"),
        (INDEX, _text("{"), "model_index.json: not valid JSON"),
        (INDEX, _text("[]"), "names no pipeline class"),
        (INDEX, _text('{"_class_name": 1}'), "names no pipeline class"),
        (CONFIG, Path.unlink, "transformer: has no config.json of any kind"),
        (CONFIG, _text("{,}"), "config.json: not valid JSON"),
        ("scheduler/scheduler_config.json", Path.unlink, "scheduler: has no config.json of any kind"),
        ("scheduler/scheduler_config.json", _text(""), "scheduler_config.json: not valid JSON"),
        (WEIGHTS, Path.unlink, "transformer: has a config.json but no .safetensors file"),
        (WEIGHTS, _cut, "truncated or overlong"),
        (WEIGHTS, _longer, "truncated or overlong"),
        (WEIGHTS, _text(""), "not a safetensors file, or truncated within its header"),
        (WEIGHTS, _text("version https://git-lfs"), "not a safetensors file, or truncated within its header"),
        (WEIGHTS, _header("{{}"), "its safetensors header is damaged"),
        (WEIGHTS, _header("[1]"), "its safetensors header is damaged"),
        (WEIGHTS, _header('{"a": {"data_offsets": [0, "b"]}}'), "its safetensors header is damaged"),
        (WEIGHTS, _header('{"a": {"data_offsets": [0, 0]}}'), "its safetensors header is damaged"),
        (WEIGHTS, _folder_in_the_way, "cannot be read: Is a directory"),
        (SHARDS, _text('{"weight_map": {"a": "second.safetensors"}}'), "second.safetensors: missing"),
        (SHARDS, _text("[]"), "names no files"),
        (SHARDS, _text('{"weight_map": {"a": 1}}'), "names no files"),
    ],
)
def test_damage(name: str, damage: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    """Given one damaged file, then the error is one line that names it and what is wrong."""
    folder = write_folder(tmp_path / "pipeline")
    damage(folder / name)
    with pytest.raises(SourceError) as caught:
        inspect(folder, {})
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert says in message
    assert len(message.splitlines()) == 1


def test_size_of_weights(tmp_path: Path) -> None:
    """Given a component in two files, then elements of all tensors and bytes of both files are summed."""
    write_safetensors(tmp_path / "model-1.safetensors", 16)
    write_safetensors(tmp_path / "model-2.safetensors", 5)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert weights(tmp_path) == Weights(parameters=21, size=size)


@pytest.mark.parametrize("length", [0, 4, 8, 20, 79])
def test_cut_off_download(length: int, tmp_path: Path) -> None:
    """Given a weights file that ends anywhere before its end, then it is found."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path)
    check_safetensors(path)
    whole = path.read_bytes()
    assert length < len(whole)
    path.write_bytes(whole[:length])
    with pytest.raises(SourceError, match="copy it again"):
        check_safetensors(path)

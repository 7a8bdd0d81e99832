"""CLIP score, with a tiny untrained model whose numbers mean nothing but must be right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from qregress.metrics import MetricError, validate_clip_name
from qregress.metrics.clip import Clip, load_clip
from tests.unit.metrics.making import CAPTIONS, as_stored, write_tiny_clip

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture(scope="module")
def tiny(clip_folder: Path) -> Clip:
    """The tiny model, loaded."""
    return load_clip(f"local-dir:{clip_folder}")


@pytest.fixture
def copied(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to be damaged."""
    return Path(shutil.copytree(clip_folder, tmp_path / "tiny"))


@pytest.mark.parametrize("size", [(128, 128), (40, 40), (96, 128), (33, 21)])
def test_score_is_open_clips_cosine_on_the_stored_image(
    tiny: Clip, clip_folder: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    """The same PNG through open_clip's own loader and transform gives the same numbers, whatever its size."""
    import open_clip

    images = as_stored(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(7)))
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(list(CAPTIONS[:2]))
    expected = []
    for number, image in enumerate(images):
        path = tmp_path / f"{number}.png"
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(path)
        with torch.inference_mode():
            seen = model.encode_image(transform(Image.open(path))[None], normalize=True)
            read = model.encode_text(tokens[number : number + 1], normalize=True)
        expected.append(max(100 * float((seen * read).sum()), 0.0))
    assert expected == pytest.approx(tiny.score(images, CAPTIONS[:2]), abs=1e-4)


def test_a_score_is_never_negative(tiny: Clip, pictures: Tensor) -> None:
    """max(cosine, 0): some pair of an untrained model always points apart."""
    cosine = tiny.embed_images(pictures) @ tiny.embed_text(CAPTIONS).T
    for image, text in torch.cartesian_prod(torch.arange(8), torch.arange(3)).tolist():
        expected = max(100 * float(cosine[image, text]), 0.0)
        assert expected == pytest.approx(tiny.score(pictures[image][None], [CAPTIONS[text]])[0], abs=1e-4)


def test_scores_repeat_and_do_not_depend_on_neighbours(tiny: Clip, pictures: Tensor) -> None:
    """Bit for bit, alone and among others; larger batches agree to rounding."""
    prompts = [CAPTIONS[i % 3] for i in range(8)]
    scores = tiny.score(pictures, prompts)
    assert scores == tiny.score(pictures, prompts)
    assert scores[4:5] == tiny.score(pictures[4:5], prompts[4:5])
    assert torch.allclose(tiny.embed_images(pictures), tiny.embed_images(pictures, batch_size=8), atol=1e-5)


def test_embeddings_are_unit_vectors(tiny: Clip, pictures: Tensor) -> None:
    """Float32 on the CPU, one row each."""
    for vectors, count in ((tiny.embed_images(pictures), 8), (tiny.embed_text(CAPTIONS), 3)):
        assert (count, 16) == tuple(vectors.shape)
        assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * count, abs=1e-5)


def test_as_many_prompts_as_images(tiny: Clip, pictures: Tensor) -> None:
    """Pairs are never cut to the shorter list."""
    with pytest.raises(MetricError, match="8 images but 3 prompts"):
        tiny.score(pictures, CAPTIONS)


def test_nan_is_refused(tiny: Clip) -> None:
    """A broken image has no score."""
    with pytest.raises(MetricError, match="NaN"):
        tiny.score(torch.full((1, 3, 40, 40), torch.nan), CAPTIONS[:1])


def test_identity_is_that_of_weights_vocabulary_and_preprocessing(
    tiny: Clip, copied: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A copy elsewhere is the same; other weights or another normalisation are not; no path is in the name."""
    assert tiny.weights == load_clip(f"local-dir:{copied}").weights
    assert tiny.weights.name == "open_clip/local-dir:tiny"
    other = write_tiny_clip(tmp_path_factory.mktemp("other"), seed=1)
    assert tiny.weights.sha256 != load_clip(f"local-dir:{other}").weights.sha256
    config = json.loads((copied / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (copied / "open_clip_config.json").write_text(json.dumps(config))
    assert tiny.weights.sha256 != load_clip(f"local-dir:{copied}").weights.sha256


def test_a_model_without_weights_is_never_scored_with(copied: Path) -> None:
    """open_clip itself would go on with random ones."""
    (copied / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(MetricError, match="cannot be loaded") as caught:
        load_clip(f"local-dir:{copied}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["open_clip_config.json", "open_clip_pytorch_model.bin", "tokenizer.json"])
def test_a_truncated_file_is_one_line(copied: Path, file: str) -> None:
    """Whatever is damaged, the message is one line that names the model."""
    (copied / file).write_bytes((copied / file).read_bytes()[:50])
    with pytest.raises(MetricError, match=r"local-dir:.*tiny.*cannot be loaded") as caught:
        load_clip(f"local-dir:{copied}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["pocket", "hf-hub:owner/repository", "ViT-B-32/laion2b_s34b_b79k", "ViT-B/32/openai"])
def test_names_are_checked_by_their_form(spec: str) -> None:
    """Without loading anything."""
    validate_clip_name(spec)


@pytest.mark.parametrize(
    "spec", ["", "pokcet", "hf-hub:", "hf-hub:name", "local-dir:", "local-dir:no/where", "a b/c", "ViT-B-32/"]
)
def test_what_is_no_name_is_one_line(spec: str) -> None:
    """The message says what is allowed, or what the folder lacks."""
    with pytest.raises(MetricError, match=r"allowed: 'pocket'|expected a folder") as caught:
        validate_clip_name(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [("ViT-B-33/openai", "no model 'ViT-B-33'; nearest: ViT-B-32"), ("ViT-B-32/openia", "nearest: openai")],
)
def test_an_unknown_model_or_tag_suggests_the_nearest(spec: str, said: str) -> None:
    """open_clip knows its names without a network."""
    with pytest.raises(MetricError, match=said):
        load_clip(spec)


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Offline, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MetricError, match=r"hf-hub:nobody/nothing.*cannot be loaded") as caught:
        load_clip("hf-hub:nobody/nothing")
    assert "\n" not in str(caught.value)

"""Every pocket pipeline that is in the package: real, repeatable, offline, and the same when it is copied out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageSequence
from torchvision.transforms.functional import pil_to_tensor

from qregress import pipelines
from qregress.metrics.clip import load_clip
from qregress.pipelines import pocket
from qregress.pipelines.export import snippet
from qregress.pipelines.folder import Folder
from tests.regression import zoo_apart

ROOT = Path(__file__).parents[2]
NAMES = pocket.names()
#: What the full-size pipelines are made of, as their repositories' model_index.json say; tokenizers and schedulers
#: have several names for the same thing there.
CLASSES = {
    "AuraFlowPipeline": {"transformer": "AuraFlowTransformer2DModel", "text_encoder": "UMT5EncoderModel"},
    "HunyuanDiTPipeline": {
        "transformer": "HunyuanDiT2DModel",
        "text_encoder": "BertModel",
        "text_encoder_2": "T5EncoderModel",
    },
    "LattePipeline": {"transformer": "LatteTransformer3DModel", "text_encoder": "T5EncoderModel"},
    "LuminaPipeline": {"transformer": "LuminaNextDiT2DModel", "text_encoder": "GemmaModel"},
    "PixArtAlphaPipeline": {"transformer": "PixArtTransformer2DModel", "text_encoder": "T5EncoderModel"},
    "PixArtSigmaPipeline": {"transformer": "PixArtTransformer2DModel", "text_encoder": "T5EncoderModel"},
    "StableDiffusion3Pipeline": {
        "transformer": "SD3Transformer2DModel",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
    },
}

#: CLIP score that an image of its own caption has: on 256 held-out captions and seven pipelines the mean was 93.9 to
#: 94.8 with the own caption, and 70.0 to 70.7 with one of another colour, kind, place, size or background.
OWN = 85.0


class Here(msgspec.Struct, frozen=True):
    """A pocket pipeline in this process, and what it draws."""

    name: str
    source: Folder
    pipeline: DiffusionPipeline
    image: torch.Tensor


class Apart(msgspec.Struct, frozen=True):
    """What another process has done: ``images`` by name and way of loading, and copies of the pipelines."""

    folder: Path
    images: dict[str, dict[str, torch.Tensor]]
    guarded: int
    attempts: list[str]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models of this size are as fast on one, and on two ten times slower where something else has the other core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Apart:
    """All of them in a process without a network, with nothing in its caches, that was not told to stay offline."""
    folder = tmp_path_factory.mktemp("zoo")
    told = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    done = subprocess.run(
        [sys.executable, zoo_apart.__file__, str(folder)],
        env=environment | {"HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    images = {name: torch.load(folder / f"{name}.pt") for name in NAMES}
    return Apart(folder=folder, images=images, **json.loads((folder / "network.json").read_text()))


@pytest.fixture(scope="module", params=NAMES)
def here(request: pytest.FixtureRequest) -> Here:
    """One after the other, each loaded once."""
    source = pocket.find(request.param)
    pipeline = pipelines.load(source, "float16", "cpu")
    return Here(request.param, source, pipeline, zoo_apart.draw(pipeline, source.call))


def test_components_are_the_real_ones(here: Here) -> None:
    """Denoiser, text encoders and VAE are of the full-size family's classes, and what is loaded is what is named."""
    index = json.loads((here.source.path / "model_index.json").read_text(encoding="utf-8"))
    named = {name: entry[1] for name, entry in index.items() if isinstance(entry, list) and entry[1] is not None}
    assert {name: type(getattr(here.pipeline, name)).__name__ for name in named} == named
    assert type(here.pipeline).__name__ == here.source.class_name
    roles = here.source.family
    parts = (roles.denoiser, *roles.text_encoders)
    assert {name: named[name] for name in parts} == CLASSES[here.source.class_name]
    assert named[roles.vae] == "AutoencoderKL"
    assert {*here.source.components} == {*parts, roles.vae}


def test_the_same_image_in_another_process(here: Here, apart: Apart) -> None:
    """Loaded twice, each draws the same image to the bit."""
    assert here.image.isfinite().all()
    assert here.image.std() > 0
    assert torch.equal(here.image, apart.images[here.name]["pocket"])


def test_the_same_image_after_export(here: Here, apart: Apart) -> None:
    """The exported folder, loaded by Diffusers alone, draws the same image to the bit."""
    assert torch.equal(here.image, apart.images[here.name]["plain"])


def test_nothing_asks_for_a_network(apart: Apart) -> None:
    """No pipeline looks for anything outside, neither as qregress loads it nor as Diffusers does."""
    assert apart.guarded > 0, "an attempt would not have been seen"
    assert apart.attempts == []


def test_the_snippet_draws_its_prompt(here: Here, apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that an export prints run as they are, and their image shows what it was asked for."""
    monkeypatch.chdir(apart.folder)
    exec(compile(snippet(here.source, here.name), "snippet", "exec"), {})  # noqa: S102 - it is what is tested
    video = here.source.family.frames
    with Image.open("video.gif" if video else "image.png") as image:
        frames = [pil_to_tensor(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert len(frames) == (here.source.call[video] if video else 1)
    scores = load_clip("pocket").score(torch.stack(frames) / 255, pipelines.builtin_prompts()[:1] * len(frames))
    assert scores[len(scores) // 2] > OWN

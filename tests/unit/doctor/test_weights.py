"""Metric weights: whole, damaged, to be downloaded; never downloaded here."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from qregress.config import Metrics
from qregress.doctor import Fact, hub
from qregress.doctor import weights as room
from qregress.doctor.hub import Cache
from qregress.metrics.shift_tolerant import PACKAGE, WEIGHTS, weights_file
from qregress.pipelines.pocket import zoo
from tests.making import write_safetensors

_TAG = "ViT-B-32/laion2b_s34b_b79k"
_REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub; returns where it keeps weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def facts(lpips: str = "st-alex", clip: str = "pocket", cache: Cache | None = None) -> dict[str, Fact]:
    """By name, for a configuration with these metrics."""
    return {fact.name: fact for fact in room.weights(Metrics(lpips=lpips, clip=clip), cache or Cache())}


def test_nothing_is_named() -> None:
    """Given no configuration, then all are looked at, and what is not there is no problem."""
    found = room.weights(None, Cache())
    assert [fact.name for fact in found] == [
        *(f"lpips {n}" for n in ("st-alex", "alex", "vgg", "squeeze")),
        "clip pocket",
    ]
    assert {fact.state for fact in found} == {"ok", "absent"}


def test_named(torch_home: Path) -> None:
    """Given a backbone that is not cached, then the first run gets it, and doctor does not."""
    found = facts("squeeze")
    assert (found["lpips squeeze"].state, found["lpips alex"].state) == ("later", "absent")
    assert found["lpips squeeze"].cost == "a download of 5 MiB"
    assert found["lpips squeeze"].detail.endswith("named by the configuration")
    assert found["clip pocket"].detail.endswith("named by the configuration")
    assert "named" not in found["lpips st-alex"].detail
    assert not torch_home.exists()


@pytest.mark.parametrize(("named", "state"), [("alex", "missing"), ("st-alex", "absent")])
def test_damaged_backbone(named: str, state: str, torch_home: Path) -> None:
    """Given a cached file whose digest is not the one in its name, then it is damaged, and told what to do."""
    torch_home.mkdir(parents=True)
    file = torch_home / "alexnet-owt-7be5be79.pth"
    file.write_bytes(b"half a download")
    found = facts(named)["lpips alex"]
    assert (found.state, found.how.split(";")[0]) == (state, "delete it")
    assert found.detail.startswith(f"{file} is damaged")


@pytest.mark.parametrize(
    ("size", "says"), [(None, f"has no {WEIGHTS.as_posix()}"), (100_000, "cannot be read as its weights")]
)
def test_damaged_shift_tolerant(size: int | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a package without its weights, or with the first part of them, then they are missing."""
    file = tmp_path / PACKAGE / WEIGHTS
    file.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    if size is not None:
        file.write_bytes(weights_file().read_bytes()[:size])
    monkeypatch.syspath_prepend(str(tmp_path))
    found = facts()["lpips st-alex"]
    assert (found.state, found.how) == ("missing", "pip install --force-reinstall stlpips-pytorch")
    assert says in found.detail


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "tokenizer.json"])
def test_damaged_pocket_clip(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the pocket CLIP with a file that ends too early, then it is missing, and the file is named."""
    shutil.copytree(zoo() / "clip", tmp_path / "clip")
    file = tmp_path / "clip" / name
    file.write_bytes(file.read_bytes()[:-3])
    monkeypatch.setattr(room, "zoo", lambda: tmp_path)
    found = facts()["clip pocket"]
    assert (found.state, str(file) in found.detail) == ("missing", True)
    assert facts(clip=_TAG)["clip pocket"].state == "absent"


@pytest.mark.parametrize("spec", [_TAG, f"hf-hub:{_REPOSITORY}"])
def test_clip_of_the_hub(spec: str) -> None:
    """Given another CLIP, then it is in the cache, or the first run gets it, or nothing can be got."""
    name = f"clip {spec}"
    cached = facts(clip=spec, cache=Cache(repositories={_REPOSITORY: 605_000_000}))[name]
    later, offline = facts(clip=spec)[name], facts(clip=spec, cache=Cache(offline=True))[name]
    assert [fact.state for fact in (cached, later, offline)] == ["ok", "later", "missing"]
    assert later.how == f"hf download {_REPOSITORY}, or the first run gets it"


def test_clip_that_open_clip_does_not_have() -> None:
    """Given a tag that is none, then it is missing, and the nearest are told."""
    found = facts(clip="ViT-B-32/laion2b_s34b_b79")["clip ViT-B-32/laion2b_s34b_b79"]
    assert found.state == "missing"
    assert "laion2b_s34b_b79k" in found.detail + found.how


@pytest.mark.parametrize(("cut", "state"), [(0, "ok"), (1, "missing")])
def test_clip_of_a_folder(cut: int, state: str, tmp_path: Path) -> None:
    """Given a folder with a CLIP, then its weights are looked at."""
    (tmp_path / "open_clip_config.json").write_text("{}")
    file = tmp_path / "model.safetensors"
    write_safetensors(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size - cut])
    assert facts(clip=f"local-dir:{tmp_path}")[f"clip local-dir:{tmp_path}"].state == state


def test_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a cache with a model in it, then its place and size are told; given none, then that."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert hub.fact(hub.scan()).detail == f"none (it would be {tmp_path / 'hub'})"
    blobs = tmp_path / "hub" / "models--me--mine" / "blobs"
    snapshot = tmp_path / "hub" / "models--me--mine" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "a").write_bytes(bytes(1024**2))
    (snapshot / "model.safetensors").symlink_to(blobs / "a")
    assert hub.scan().repositories == {"me/mine": 1024**2}
    assert hub.fact(hub.scan()).detail == f"{tmp_path / 'hub'}: 1 model, 1.000 MiB"

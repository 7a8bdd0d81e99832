"""LPIPS: the embedded shift-tolerant one against its authors' numbers, and torchmetrics' with stand-in backbones."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.error import URLError

import pytest
import torch
from scipy.stats import spearmanr
from torchvision.transforms.functional import gaussian_blur

from qregress.metrics import MetricError
from qregress.metrics.lpips import NAMES, Lpips, load_lpips
from tests.unit.metrics.making import as_stored, draw_codes
from training import render, scenes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


@pytest.fixture(scope="module")
def st_alex() -> Lpips:
    """The embedded metric."""
    return load_lpips("st-alex")


def _noise(strength: int) -> tuple[Tensor, Tensor]:
    images = render.render(draw_codes(4), None)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(4))
    return images, images + 0.02 * strength * noise


def _blur(strength: int) -> tuple[Tensor, Tensor]:
    images = render.render(draw_codes(4), None)
    return images, gaussian_blur(images, 21, 0.4 * strength)


def _shift(strength: int) -> tuple[Tensor, Tensor]:
    images = render.render(draw_codes(4), None)
    return images, images.roll(strength, -1)


def _colour_cast(strength: int) -> tuple[Tensor, Tensor]:
    """The whole image reddens."""
    images = render.render(draw_codes(4), None)
    return images, images + 0.05 * strength * torch.tensor([1.0, -0.5, -0.5]).reshape(1, 3, 1, 1)


def _faded_colour(strength: int) -> tuple[Tensor, Tensor]:
    """The shapes lose their colour and keep their brightness."""
    geometry = render.place(draw_codes(4), None)
    brightness = (geometry.colours * torch.tensor([0.299, 0.587, 0.114])).sum(-1, keepdim=True)
    colours = geometry.colours + strength / 6 * (brightness - geometry.colours)
    return render.draw(geometry), render.draw(replace(geometry, colours=colours))


def _swapped_shape(strength: int) -> tuple[Tensor, Tensor]:
    """Another kind of shape in the same place and colour; the larger the shape, the more is another."""
    geometry = render.place(draw_codes(4), None)
    geometry = replace(geometry, radii=torch.full_like(geometry.radii, 6.0 + 3.0 * strength))
    kinds = torch.where(geometry.kinds < 0, -1, (geometry.kinds + 3) % len(scenes.KINDS))
    return render.draw(geometry), render.draw(replace(geometry, kinds=kinds))


@pytest.mark.parametrize("change", [_noise, _blur, _shift, _colour_cast, _faded_colour, _swapped_shape])
def test_distance_grows_with_strength(st_alex: Lpips, change: Callable[[int], tuple[Tensor, Tensor]]) -> None:
    """Mean distance over four scenes ranks six strengths of a change as they are; the bar is 0.95, found 1.0.

    A hue that turns on and on is no strength in this sense: beyond about 90 degrees another colour is simply another
    colour, the distance levels off, and of eight scenes two to four rank worse than 0.95 by themselves.
    """
    strengths = list(range(1, 7))
    means = [torch.tensor(st_alex.distance(*map(as_stored, change(strength)))).mean() for strength in strengths]
    assert spearmanr(strengths, means).statistic >= 0.95


def test_identical_images_have_no_distance(st_alex: Lpips, pictures: Tensor) -> None:
    """Exactly 0, not nearly."""
    assert st_alex.distance(pictures, pictures.clone()) == [0.0] * 8


def test_published_implementation_gives_the_same_numbers(st_alex: Lpips) -> None:
    """Stored values of stlpips_pytorch 0.0.2 itself, whose largest difference from ours over 64 pairs was 1.2e-7.

    Made once with torch 2.15 on a CPU, with the package's two undeclared imports at hand:
    ``stlpips.LPIPS(net="alex", variant="shift_tolerant")(one, other, normalize=True)`` over the pairs below.
    """
    one, other = _closed_form_pairs()
    expected = [0.0458321, 0.558174, 1.0770093]
    assert expected == pytest.approx(st_alex.distance(one, other), abs=1e-5)


def _closed_form_pairs() -> tuple[Tensor, Tensor]:
    """Three pairs, [3, 3, 72, 96], of waves whose 8-bit values no random generator or renderer can change."""
    y = torch.arange(72, dtype=torch.float64)[:, None]
    x = torch.arange(96, dtype=torch.float64)[None]
    base = torch.stack([torch.sin(x / 7 + channel) * torch.cos(y / 9 - channel) for channel in range(3)])
    fine = torch.stack([torch.sin(x * y / 50 + channel) for channel in range(3)])
    ones = torch.stack([base, base, base])
    others = torch.stack([base.roll(3, -1), 0.8 * base + 0.2 * fine, fine])
    return as_stored((0.5 + 0.45 * ones).float()), as_stored((0.5 + 0.45 * others).float())


def test_a_score_does_not_depend_on_its_neighbours(st_alex: Lpips, pictures: Tensor) -> None:
    """Bit for bit the same alone and among others."""
    other = as_stored(pictures * 0.9)
    assert st_alex.distance(pictures, other)[5:6] == st_alex.distance(pictures[5:6], other[5:6])


def test_distance_is_symmetric(st_alex: Lpips, pictures: Tensor) -> None:
    """Neither image of a pair is special."""
    assert st_alex.distance(pictures[:2], pictures[2:4]) == st_alex.distance(pictures[2:4], pictures[:2])


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 32), "shapes differ"),
        (torch.zeros(2, 3, 64, 64), torch.zeros(1, 3, 64, 64), "shapes differ"),
        (torch.zeros(3, 64, 64), torch.zeros(3, 64, 64), "expected images of shape"),
        (torch.zeros(1, 3, 16, 64), torch.zeros(1, 3, 16, 64), "at least 32 px"),
        (torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 1.01), r"\[0, 1\]"),
        (torch.full((1, 3, 64, 64), -0.5), torch.zeros(1, 3, 64, 64), r"\[0, 1\]"),
        (torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), torch.nan), "NaN"),
        (torch.zeros(1, 3, 64, 64).half(), torch.zeros(1, 3, 64, 64).half(), "float32"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(st_alex: Lpips, a: Tensor, b: Tensor, said: str) -> None:
    """A size mismatch is never resized away, and a value out of range is never clipped away."""
    with pytest.raises(MetricError, match=said):
        st_alex.distance(a, b)


def test_weights_are_named_and_digested(st_alex: Lpips) -> None:
    """The digest is that of the published file, as ``sha256sum`` prints it."""
    assert st_alex.weights.name == "st-alex"
    assert st_alex.weights.sha256 == "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stlpips-pytorch the message says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MetricError, match=r"stlpips-pytorch is not installed; pip install") as caught:
        load_lpips("st-alex")
    assert "\n" not in str(caught.value)


def test_a_damaged_weights_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A truncated file names itself and the remedy."""
    file = tmp_path / "alex.pth"
    file.write_bytes(b"PK\x03\x04 not the rest")
    monkeypatch.setattr("qregress.metrics.shift_tolerant.weights_file", lambda: file)
    with pytest.raises(MetricError, match=r"alex\.pth cannot be read .*pip install") as caught:
        load_lpips("st-alex")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_suggests_the_nearest() -> None:
    """Names are few, and said."""
    with pytest.raises(MetricError, match="did you mean 'squeeze'"):
        load_lpips("sqeeze")
    assert NAMES == ("st-alex", "alex", "vgg", "squeeze")


@pytest.fixture
def torch_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty torch cache without a network behind it; the folder for checkpoints."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def _write_squeezenet(folder: Path, seed: int) -> None:
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(squeezenet1_1().state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")


def test_torchmetrics_lpips_uses_the_backbone_in_torchs_cache(torch_home: Path, pictures: Tensor) -> None:
    """0 for identical images, more for more noise, per pair; another backbone file has another digest."""
    _write_squeezenet(torch_home, seed=0)
    squeeze = load_lpips("squeeze")
    noise = torch.randn(pictures[:2].shape, generator=torch.Generator().manual_seed(0))
    weak, strong = (as_stored((pictures[:2] + strength * noise).clamp(0, 1)) for strength in (0.05, 0.3))
    assert squeeze.distance(pictures[:2], pictures[:2]) == [0.0, 0.0]
    near, far = squeeze.distance(pictures[:2], weak), squeeze.distance(pictures[:2], strong)
    assert all(0 < a < b for a, b in zip(near, far, strict=True))
    assert near[1:] == squeeze.distance(pictures[1:2], weak[1:])
    assert squeeze.weights.name == "torchmetrics/squeeze"
    assert squeeze.weights == load_lpips("squeeze").weights
    _write_squeezenet(torch_home, seed=1)
    assert squeeze.weights.sha256 != load_lpips("squeeze").weights.sha256


def test_a_backbone_that_cannot_be_had_is_one_line(torch_home: Path) -> None:
    """The message names the file, the folder it belongs in, and the way without a download."""
    with pytest.raises(MetricError, match=r"alexnet-owt-\w+\.pth is not in .*TORCH_HOME.*'st-alex'") as caught:
        load_lpips("alex")
    assert str(torch_home) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_backbone_is_one_line(torch_home: Path) -> None:
    """A truncated download is named, and not taken for a missing one."""
    (torch_home / "vgg16-397923af.pth").write_bytes(b"half a file")
    with pytest.raises(MetricError, match=r"vgg16-397923af\.pth is not torchvision's backbone") as caught:
        load_lpips("vgg")
    assert "\n" not in str(caught.value)

"""Sanity: broken images are called so, and odd but healthy ones are not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from qregress.metrics import MetricError
from qregress.metrics.sanity import inspect
from tests.unit.metrics.making import as_stored, draw_codes
from training import render

if TYPE_CHECKING:
    from torch import Tensor


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _kinds(image: Tensor, **others: Tensor) -> list[str]:
    return [problem.kind for problem in inspect(image, **others)]


def _blotches(seed: int, cell: int = 8) -> Tensor:
    """Colour noise of one value per cell, interpolated, as a decoder makes of noise."""
    noise = _random(1, 3, 16, 16, seed=seed)
    return as_stored(functional.interpolate(noise, scale_factor=cell, mode="bicubic").clamp(0, 1))[0]


def _grass(seed: int) -> Tensor:
    """Fine green texture whose amplitude falls as 1 / sqrt(frequency)."""
    frequency = torch.fft.fftfreq(128)
    radius = (frequency[:, None].square() + frequency.square()).sqrt().clamp(min=1 / 128)
    white = torch.randn(128, 128, generator=torch.Generator().manual_seed(seed))
    texture = torch.fft.ifft2(torch.fft.fft2(white) / radius.sqrt()).real
    green = torch.tensor([0.3, 0.5, 0.2])[:, None, None]
    return as_stored((green + 0.15 * texture / texture.std()).clamp(0, 1))


def _checkers(side: int) -> Tensor:
    index = torch.arange(128) // side
    return (0.1 + 0.8 * ((index[:, None] + index) % 2)).expand(3, 128, 128)


def test_scenes_are_healthy() -> None:
    """No alarm on 24 rendered scenes; of 2,000 others one was called noise, none black or flat."""
    scenes = as_stored(render.render(draw_codes(24), torch.Generator().manual_seed(0)))
    assert [inspect(scene) for scene in scenes] == [[]] * 24


@pytest.mark.parametrize("side", [1, 2, 4, 8, 16])
def test_a_checkerboard_is_not_noise(side: int) -> None:
    """Neighbours that differ regularly are structure."""
    assert inspect(_checkers(side)) == []


@pytest.mark.parametrize("seed", range(3))
def test_grass_is_not_noise(seed: int) -> None:
    """Fine texture has some correlation and little colour."""
    assert inspect(_grass(seed)) == []


def test_black_frames_are_black(pictures: Tensor) -> None:
    """All zeros, nearly so, and with a few stuck pixels."""
    dark = torch.zeros(3, 128, 128)
    stuck = dark.clone()
    stuck[:, 5, 5:10] = 1.0
    for image in (dark, dark + 2 / 255, stuck):
        assert _kinds(image, reference=pictures[0]) == ["black"]
        assert _kinds(image) == ["black"]


def test_even_frames_are_flat(pictures: Tensor) -> None:
    """One colour, and one colour with faint noise."""
    grey = torch.full((3, 128, 128), 0.5)
    for image in (grey, as_stored(grey + 0.02 * (_random(3, 128, 128) - 0.5))):
        assert _kinds(image, reference=pictures[0]) == ["flat"]


def test_noise_is_noise_in_colour_in_grey_and_in_large_images(pictures: Tensor) -> None:
    """Uncorrelated pixels, uniform or Gaussian."""
    gaussian = 0.5 + 0.2 * torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(1))
    for image in (_random(3, 128, 128), _random(1, 128, 128).expand(3, -1, -1), gaussian.clamp(0, 1)):
        assert _kinds(as_stored(image), reference=pictures[0]) == ["noise"]
    assert _kinds(as_stored(_random(3, 512, 512))) == ["noise"]


def test_noise_drowns_a_scene_gradually(pictures: Tensor) -> None:
    """A strength of 0.1 is a blemish for LPIPS to judge; at 1.0 there is no picture left."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(2))
    for scene, grain in zip(pictures, noise, strict=True):
        assert inspect(as_stored((scene + 0.1 * grain).clamp(0, 1))) == []
        assert _kinds(as_stored((scene + grain).clamp(0, 1)), reference=scene) == ["noise"]


@pytest.mark.parametrize("cell", [8, 16, 32])
def test_decoded_noise_is_noise(pictures: Tensor, cell: int) -> None:
    """Blotches of an autoencoder's cell are found, though neighbouring pixels agree."""
    for seed in range(4):
        assert _kinds(_blotches(seed, cell), reference=pictures[0]) == ["noise"]
        assert _kinds(_blotches(seed, cell), latents=_random(4, 16, 16, seed=seed) - 0.5) == ["noise"]


def test_latents_with_structure_acquit_blotches() -> None:
    """Confetti that was drawn on purpose has latents whose neighbours agree."""
    latents = functional.avg_pool2d(_random(1, 4, 18, 18), 3, stride=1)[0]
    assert inspect(_blotches(0), latents=latents) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_found_in_the_image_and_behind_it(pictures: Tensor, bad: float) -> None:
    """Conversion to 8 bits hides a NaN, so the latents are looked at too."""
    latents = torch.zeros(4, 16, 16, dtype=torch.float16)
    latents[0, 0, 0] = bad
    broken = pictures[0].clone()
    broken[0, 0, 0] = bad
    assert _kinds(broken) == ["nan"]
    assert _kinds(pictures[0], latents=latents) == ["nan"]
    assert _kinds(torch.zeros(3, 128, 128), latents=latents) == ["nan", "black"]
    assert "1 of 1024 values of the latents" in inspect(pictures[0], latents=latents)[0].detail


def test_what_the_reference_shows_too_is_no_problem() -> None:
    """A prompt may ask for the night, an empty wall or static; a reference near the threshold excuses as well."""
    night, wall = torch.full((3, 128, 128), 0.01), torch.full((3, 128, 128), 0.7)
    assert inspect(night, reference=night + 0.03) == []
    assert inspect(wall, reference=wall + 0.09 * (_random(3, 128, 128) - 0.5)) == []
    assert inspect(_random(3, 128, 128), reference=_random(3, 128, 128, seed=1)) == []
    assert inspect(_blotches(0), reference=_blotches(1)) == []


def test_another_defect_than_the_references_is_a_problem() -> None:
    """A noisy reference does not excuse a black frame."""
    assert _kinds(torch.zeros(3, 128, 128), reference=_random(3, 128, 128)) == ["black"]


def test_one_image_at_a_time() -> None:
    """A batch is refused, and so is a batch as the reference."""
    with pytest.raises(MetricError, match=r"one image of shape \[3, height, width\]"):
        inspect(torch.zeros(1, 3, 8, 8))
    with pytest.raises(MetricError, match="one reference of shape"):
        inspect(torch.zeros(3, 8, 8), reference=torch.zeros(1, 3, 8, 8))

"""A setting that damages one of SD3's three text encoders shows in its images."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

import pytest
import torch

from benchmarks.sd3_encoders import BAR, INT8, measure

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.fixture(scope="module")
def distances() -> Iterator[dict[str, list[float]]]:
    """LPIPS to the reference of two prompts, eight steps each, on one thread: another process may have the others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield measure(prompts=2, steps=8, parameters=False)
    torch.set_num_threads(before)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_that_is_silent_moves_images(encoder: str, distances: dict[str, list[float]]) -> None:
    """Without what one encoder says images move at least five times further than int8 weights move them."""
    assert fmean(distances[INT8]) > 0
    assert fmean(distances[f"{encoder} silent"]) >= BAR * fmean(distances[INT8])

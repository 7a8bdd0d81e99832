"""What the metrics' tests score, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.unit.metrics.making import as_stored, draw_codes, write_tiny_clip
from training import render

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@pytest.fixture(scope="session")
def pictures() -> Tensor:
    """Eight scenes, [8, 3, 128, 128]."""
    return as_stored(render.render(draw_codes(8), torch.Generator().manual_seed(1)))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model."""
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")

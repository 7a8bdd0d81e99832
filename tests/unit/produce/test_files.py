"""Images and latents on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from msgspec import UNSET
from PIL import Image

from qregress.errors import ProduceError
from qregress.produce.files import keeping, load_generated, save_generated
from qregress.produce.generate import Generated
from qregress.produce.timing import Spent


def made(prompts: int, frames: int) -> Generated:
    """Images of one level each, which is their place."""
    levels = torch.arange(prompts * frames, dtype=torch.uint8).view(-1, 1, 1, 1)
    length = (frames,) if frames > 1 else ()
    return Generated(
        images=levels.expand(-1, 3, 4, 4).clone(),
        finite=torch.ones(prompts * frames, dtype=torch.bool),
        latents=torch.randn(prompts, 4, *length, 2, 2),
        trajectory=torch.zeros(prompts, 1, 4, *length, 2, 2),
        frames=frames,
    )


@pytest.mark.parametrize(("prompts", "frames"), [(2, 1), (2, 3), (1, 5)])
def test_read_after_write(prompts: int, frames: int, tmp_path: Path) -> None:
    """Given images or videos, when they are written and read, then they are the same, and so is their length."""
    images, initial = made(prompts, frames), torch.randn(prompts, 4, 2, 2)
    kept = save_generated(tmp_path, images, initial)
    assert kept["images"] == tuple(f"images/{index:02d}.png" for index in range(prompts * frames))
    assert kept["frames"] == (frames if frames > 1 else UNSET)
    found, again = load_generated(tmp_path, kept["images"])
    assert found.equals(images)
    assert (found.frames, found.finite.tolist()) == (frames, images.finite.tolist())
    assert torch.equal(again, initial)


def test_many_frames_are_numbered_in_order(tmp_path: Path) -> None:
    """Given more frames than two digits can number, then a listing of the folder has them in order."""
    kept = save_generated(tmp_path, made(4, 30))
    listed = sorted((tmp_path / "images").iterdir())
    assert [path.relative_to(tmp_path).as_posix() for path in listed] == list(kept["images"])
    assert [Image.open(path).getpixel((0, 0)) for path in listed] == [(level,) * 3 for level in range(120)]


def test_files_that_are_gone(tmp_path: Path) -> None:
    """Given a video of which a frame is missing, then it is an error in one line."""
    kept = save_generated(tmp_path, made(2, 3), torch.zeros(2, 4, 2, 2))
    (tmp_path / kept["images"][4]).unlink()
    with pytest.raises(ProduceError, match="cannot be read") as caught:
        load_generated(tmp_path, kept["images"])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("also", [False, True], ids=["alone", "beside another error"])
def test_files_that_cannot_be_written(also: bool, tmp_path: Path) -> None:
    """Given a folder that cannot be made, then that is an error at the end of what goes on meanwhile, hiding none."""
    (tmp_path / "cells").write_text("no folder", encoding="utf-8")
    made = Generated(
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.ones(1) > 0, torch.zeros(1, 4), torch.zeros(1, 4)
    )

    def keep() -> None:
        with keeping(tmp_path / "cells" / "bs1", made, None, Spent()):
            if also:
                raise ValueError

    with pytest.raises(OSError, match="cells") as ended:
        keep()
    assert isinstance(ended.value.__context__, ValueError) is also

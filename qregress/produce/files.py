"""A cell's images and latents on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from msgspec import UNSET
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torchvision.transforms.functional import pil_to_tensor

from qregress.errors import ProduceError
from qregress.frames import image_names
from qregress.produce.determinism import available_cores
from qregress.produce.generate import Generated
from qregress.produce.timing import Spent
from qregress.store.atomic import write_atomic

_TENSORS = "latents.safetensors"
#: Four times as fast as the default for a picture of 1024 x 1024 px (0.1 s), and a quarter larger.
_FAST = 1


def save_generated(folder: Path, made: Generated, initial: torch.Tensor | None = None) -> dict[str, Any]:
    """Write PNGs and tensors; returns fields of a record: images' names relative to the folder, and SHA-256 digests.

    And the number of frames where prompts give videos. ``initial``: of a reference its initial latents, which are
    written too, as is what it had after each step: others are held against it when the process that made it is gone.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = image_names(len(made.images), "png")

    pixels = made.images.permute(0, 2, 3, 1).contiguous()  # here, as Pillow would keep other threads from running

    def write(name: str, image: torch.Tensor) -> None:
        Image.fromarray(image.numpy()).save(folder / name, compress_level=_FAST)

    with ThreadPoolExecutor(available_cores()) as threads:  # deflating and digesting let others run
        images_sha256 = threads.submit(digest, made.images)
        list(threads.map(write, names, pixels))
    tensors = {"latents": made.latents.contiguous(), "finite": made.finite}
    if initial is not None:
        tensors |= {"initial": initial, "trajectory": made.trajectory}
    write_atomic(folder / _TENSORS, save(tensors))
    return {
        "images": tuple(names),
        "latents_sha256": digest(made.latents),
        "images_sha256": images_sha256.result(),
        "frames": made.frames if made.frames > 1 else UNSET,
    }


@contextmanager
def keeping(
    folder: Path, made: Generated, initial: torch.Tensor | None, spent: Spent
) -> Iterator[Future[dict[str, Any]]]:
    """See ``save_generated``, beside something that is not timed; it is written when that has ended.

    What could not be written is an error then; one of that something is in its context.
    """
    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(save_generated, folder, made, initial)
        try:
            yield written
        finally:
            with spent.on("files"):
                written.result()


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes, hex."""
    flat = tensor.contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()


def load_generated(folder: Path, images: tuple[str, ...]) -> tuple[Generated, torch.Tensor]:
    """Read back what ``save_generated`` wrote, and the initial latents. Raises ``ProduceError`` with one line."""
    try:
        tensors = load_file(folder / _TENSORS)
        pictures = torch.stack([pil_to_tensor(Image.open(folder / name)) for name in images])
        latents = tensors["latents"]
        frames = len(pictures) // len(latents)
        made = Generated(pictures, tensors["finite"], latents, tensors["trajectory"], frames)
        return made, tensors["initial"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ProduceError(f"{folder}: the reference's files cannot be read ({error}); run again") from error

"""Videos in flat lists: which prompt an entry belongs to, and which frame of its video; the one place that knows.

Images are in the order of the prompts, those of one prompt's video one after the other. A list has an entry for each
image (LPIPS, CLIP) or for each prompt (latents, motion). Frames are counted from 0, as prompts and files are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

if TYPE_CHECKING:
    from qregress.record import Record

_DIGITS = 2  # of the number in an image's name, where that is enough for all of them


def where(prompt: int | str, frame: int | UnsetType = UNSET) -> str:
    """What a prompt, by its place or text, is called in messages, and a frame of its video: ``prompt 1, frame 3``."""
    return f"prompt {prompt!r}" if frame is UNSET else f"prompt {prompt!r}, frame {frame}"


def of_image(image: int, frames: int) -> tuple[int, int | UnsetType]:
    """The prompt that an image belongs to, and which frame it is: ``UNSET`` where each prompt gives one image."""
    return (image // frames, image % frames) if frames > 1 else (image, UNSET)


def of_entry(record: Record, entry: int, entries: int) -> str:
    """What an entry of one of a record's lists belongs to, in words; ``entries``: how many that list has."""
    frames = _frames(record, entries)
    if entries != len(record.prompts) * frames:
        return f"entry {entry}"
    prompt, frame = of_image(entry, frames)
    return where(record.prompts[prompt], frame)


def prompts_of(record: Record, chosen: Iterable[int], entries: int) -> int:
    """How many prompts some entries of a list belong to: frames of one video are no samples of their own."""
    frames = _frames(record, entries)
    return len({of_image(entry, frames)[0] for entry in chosen})


def worst_of_prompts(record: Record, values: Sequence[float]) -> list[float]:
    """The largest entry of each prompt, of a list with an entry for each image or each prompt of a record."""
    frames = _frames(record, len(values))
    return [max(values[start : start + frames]) for start in range(0, len(values), frames)]


def for_each_image(prompts: Sequence[str], frames: int) -> list[str]:
    """The prompt of each image."""
    return [prompt for prompt in prompts for _ in range(frames)]


def image_names(count: int, suffix: str) -> list[str]:
    """Names of so many images, relative to a cell's folder, which sort in their order: ``images/00.png``, ..."""
    digits = max(_DIGITS, len(str(count - 1)))
    return [f"images/{index:0{digits}d}.{suffix}" for index in range(count)]


def _frames(record: Record, entries: int) -> int:
    """Entries that a list has for each prompt."""
    frames = record.frames or 1
    return frames if entries == len(record.prompts) * frames else 1

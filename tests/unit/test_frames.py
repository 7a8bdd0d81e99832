"""Which prompt and which frame an entry of a list belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from qregress import frames
from qregress.record import Record
from tests.making import make_record

SMALL = st.integers(min_value=1, max_value=6)


def video(count: int = 3) -> Record:
    """Two prompts that give a video each."""
    return make_record(frames=count)


def test_images_are_named_as_ever() -> None:
    """Given one image for each prompt, then no frame is spoken of."""
    record = make_record()
    assert [frames.of_entry(record, at, 2) for at in range(2)] == [
        "prompt 'a small red circle'",
        "prompt 'a large blue square'",
    ]
    assert (frames.where(1), frames.of_image(1, 1)) == ("prompt 1", (1, UNSET))


def test_frames_follow_their_prompt() -> None:
    """Given videos of three frames, then the fourth image is the second prompt's first frame."""
    assert frames.of_entry(video(), 3, 6) == "prompt 'a large blue square', frame 0"
    assert frames.of_entry(video(), 2, 6) == "prompt 'a small red circle', frame 2"
    assert frames.where(*frames.of_image(5, 3)) == "prompt 1, frame 2"


def test_a_list_with_an_entry_for_each_prompt() -> None:
    """Given videos and a list as long as the prompts, as of latents, then its entries are prompts'."""
    assert frames.of_entry(video(), 1, 2) == "prompt 'a large blue square'"
    assert frames.prompts_of(video(), range(2), 2) == 2


@pytest.mark.parametrize(("record", "entries"), [(make_record(), 6), (video(), 5), (make_record(prompts=()), 1)])
def test_a_list_that_fits_neither(record: Record, entries: int) -> None:
    """Given a list of another length, as of a damaged record, then no prompt is named that may be another's."""
    assert frames.of_entry(record, 0, entries) == "entry 0"


def test_samples_are_prompts() -> None:
    """Given all frames of one video and one of another, then they are two samples; of images each is one."""
    assert frames.prompts_of(video(), [0, 1, 2, 4], 6) == 2
    assert frames.prompts_of(make_record(), [1], 2) == 1


@given(SMALL, SMALL)
def test_every_image_has_its_prompt(prompts: int, count: int) -> None:
    """Given any numbers, then the prompts of all images are those that they are said to belong to."""
    names = [str(index) for index in range(prompts)]
    found = [names[frames.of_image(image, count)[0]] for image in range(prompts * count)]
    assert found == frames.for_each_image(names, count)


@pytest.mark.parametrize(
    ("count", "last"),
    [(1, "images/00.png"), (100, "images/99.png"), (101, "images/100.png"), (1001, "images/1000.png")],
)
def test_names_sort_as_images_do(count: int, last: str) -> None:
    """Given more images than two digits can number, then all names are longer, and a listing is in order."""
    names = frames.image_names(count, "png")
    assert names == sorted(names)
    assert (names[-1], len(set(names))) == (last, count)

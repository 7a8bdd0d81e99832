"""The noise floor: what is run again, and by how much it moved each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from msgspec import UNSET

from qregress.produce import scoring
from qregress.produce.generate import Generated, join
from qregress.produce.noise import measure
from qregress.record import Noise, NoiseVariant, Record, Scores
from tests.making import make_record

PROMPTS = ("a small red circle", "a large blue square", "a green star")


def made(level: int, latent: float) -> Generated:
    """One image of one colour."""
    return Generated(
        images=torch.full((1, 3, 64, 64), level, dtype=torch.uint8),
        finite=torch.tensor([True]),
        latents=torch.full((1, 4, 8, 8), latent),
        trajectory=torch.zeros(1, 2, 4, 8, 8),
    )


OWN = join([made(100 + index, 1.0 + index) for index in range(3)])
BASE = join([made(90 + index, 0.5 + index) for index in range(3)])
UNTRAINED = Scores(latents=(1.0, 0.33, 0.2))


def noise(
    call: partial[Generated],
    *,
    batch_size: int = 1,
    repeatable: bool = True,
    reference: bool = False,
    own: Generated | None = None,
) -> Noise:
    """Of a cell with random weights: no images are scored."""
    record: Record = make_record(prompts=PROMPTS, scores=UNTRAINED, repeatable=repeatable)
    steps: list[tuple[int, int]] = []
    found = measure(
        call,
        record,
        own if own is not None else OWN,
        None if reference else BASE,
        device="cpu",
        clip="pocket",
        lpips="st-alex",
        batch_size=batch_size,
        on_variant=lambda done, total: steps.append((done, total)),
    )
    assert steps[-1] == (len(found.variants), len(found.variants))
    return found


def answer(batches: list[list[int]], batch: Sequence[int], *, together: float = 0.0) -> Generated:
    """The cell's own images; ``together`` is added to latents where prompts share a batch."""
    batches.append(list(batch))
    rows = OWN.rows(batch)
    if len(batch) == 1 or not together:
        return rows
    return Generated(rows.images + 1, rows.finite, rows.latents + together, rows.trajectory)


def of(found: Noise, name: str, score: str) -> tuple[float, ...]:
    """One variant's figures."""
    (variant,) = (variant for variant in found.variants if variant.name == name)
    values: tuple[float, ...] = getattr(variant, score)
    return values


def test_first_prompts_again_backwards_in_one_batch() -> None:
    """Given batches of one, then two prompts are run in one batch in reverse, and each is held against its own."""
    batches: list[list[int]] = []
    found = noise(partial(answer, batches))
    assert batches[0] == [1, 0]
    assert of(found, "batch", "latents") == (0.0, 0.0)
    assert of(found, "batch", "pixels") == (0.0, 0.0)


def test_larger_batches_are_taken_apart() -> None:
    """Given batches of two, then the prompts are run alone."""
    batches: list[list[int]] = []
    noise(partial(answer, batches), batch_size=2)
    assert batches[:2] == [[1], [0]]


def test_what_a_batch_moves_is_seen() -> None:
    """Given latents that depend on the batch, then by how much the distance to the reference grows."""
    found = noise(partial(answer, [], together=0.25))
    expected = [(0.75 - 0.5) / 0.5, (0.75 - 0.5) / 1.5]
    assert of(found, "batch", "latents") == pytest.approx(expected)
    assert of(found, "batch", "pixels") == pytest.approx((1.0, 1.0))
    assert found.of_prompt("latents") == pytest.approx(0.5)
    assert found.of_mean("latents", 2) == pytest.approx(sum(expected) / 2)


def test_a_reference_is_held_against_itself() -> None:
    """Given a reference, then what it moves is its distance from its own latents."""
    found = noise(partial(answer, [], together=0.25), reference=True)
    assert of(found, "batch", "latents") == pytest.approx((0.25 / 1.0, 0.25 / 2.0))


def test_repeated_bits_are_not_run_again() -> None:
    """Given a cell that repeated itself while it ran, then that is not tried once more; one that did not, is."""
    batches: list[list[int]] = []
    found = noise(partial(answer, batches), repeatable=True)
    kept = len(batches)
    assert of(found, "again", "latents") == (0.0, 0.0)
    noise(partial(answer, batches), repeatable=False)
    assert len(batches) - kept == kept + 2


def test_threads_are_given_back() -> None:
    """Given several threads, then half of them are used for a while, and all of them afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []

    def call(batch: Sequence[int]) -> Generated:
        seen.append(torch.get_num_threads())
        return OWN.rows(batch)

    try:
        noise(partial(call))
        assert seen.count(1) == 1, "one prompt: on half the threads a call takes twice as long"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def pictures(shift: int = 0) -> Generated:
    """Three images that are images, as the sanity check sees it: smooth in one direction, of all levels."""
    ramp = torch.linspace(10, 200, 64).expand(3, 64, 64)
    images = torch.stack([(ramp + shift + index).to(torch.uint8) for index in range(3)])
    return Generated(images, torch.tensor([True] * 3), OWN.latents, OWN.trajectory)


def broken(kind: str, batch: Sequence[int]) -> Generated:
    """The cell's own images; where prompts share a batch the second prompt's is none."""
    rows = pictures().rows(batch)
    if len(batch) == 1:
        return rows
    at = list(batch).index(1)
    images, finite, latents = rows.images.clone(), rows.finite.clone(), rows.latents.clone()
    if kind == "black":
        images[at] = 0
    else:
        finite[at], latents[at] = False, torch.nan
    return Generated(images, finite, latents, rows.trajectory)


@pytest.mark.parametrize(("kind", "says"), [("black", "prompt 1: black, 99.9 %"), ("nan", "prompt 1: nan, the image")])
def test_what_is_no_image_is_no_noise(kind: str, says: str) -> None:
    """Given a variant that gives black or NaN, then it is unsound, has no figures and adds no noise."""
    found = noise(partial(broken, kind), own=pictures())
    (bad,) = (variant for variant in found.variants if variant.name == "batch")
    assert bad.unsound is not None
    assert bad.unsound.startswith(says)
    assert (bad.lpips, bad.clip, bad.latents, bad.pixels) == ((), (), (), ())
    others = [variant for variant in found.variants if variant is not bad]
    assert {(variant.unsound, bool(variant.latents)) for variant in others} == {(None, True)}
    assert [(found.of_prompt(s), found.of_mean(s, 8)) for s in ("lpips", "clip", "latents", "pixels")] == [
        (0.0, 0.0)
    ] * 4


def test_what_was_no_image_before() -> None:
    """Given a prompt that is no image in the cell either, then a variant that shows the same is sound."""
    own = pictures()
    own.images[1] = 0
    found = noise(partial(broken, "black"), own=own)
    (batch,) = (variant for variant in found.variants if variant.name == "batch")
    assert (batch.unsound, batch.pixels) == (None, (0.0, 0.0))


@pytest.mark.parametrize("prompts", [8, 5, 4, 3])
def test_batches_of_four_stay_whole(prompts: int) -> None:
    """Given batches of four, then a whole batch is run again: a part of one would be another call."""
    record = make_record(prompts=tuple(str(index) for index in range(prompts)), scores=UNTRAINED, repeatable=False)
    own = join([made(100 + index, 1.0 + index) for index in range(prompts)])
    batches: list[list[int]] = []

    def call(batch: Sequence[int]) -> Generated:
        batches.append(list(batch))
        return own.rows(batch)

    options: dict[str, Any] = {"device": "cuda", "clip": "pocket", "lpips": "st-alex", "batch_size": 4}
    found = measure(call, record, own, None, on_variant=lambda *_: None, **options)
    whole = list(range(min(4, prompts)))
    alone = [[index] for index in reversed(whole)]
    assert batches == [whole, *alone, whole]
    assert {variant.name: len(variant.pixels) for variant in found.variants} == dict.fromkeys(
        ("again", "batch", "attention"), len(whole)
    )


def test_more_prompts_under_another_kernel() -> None:
    """Given batches of one, then two prompts are run in another batch, and four under another attention kernel."""
    record = make_record(prompts=tuple("abcdefgh"), scores=UNTRAINED, repeatable=True)
    own = join([made(100 + index, 1.0 + index) for index in range(8)])
    options: dict[str, Any] = {"device": "cuda", "clip": "pocket", "lpips": "st-alex", "batch_size": 1}
    found = measure(own.rows, record, own, None, on_variant=lambda *_: None, **options)
    assert {variant.name: len(variant.latents) for variant in found.variants} == {
        "again": 2,
        "batch": 2,
        "attention": 4,
    }


def test_random_weights_have_no_image_scores() -> None:
    """Given a cell whose images mean nothing, then neither LPIPS nor CLIP is in its noise."""
    found = noise(partial(answer, [], together=0.25))
    assert {(variant.lpips, variant.clip) for variant in found.variants} == {((), ())}


def test_mean_over_more_prompts_scatters_less() -> None:
    """Given shifts of both signs, then the mean of many prompts moves by less; given one common shift, by all of it."""
    scatter = Noise(variants=(NoiseVariant(name="batch", latents=(0.1, -0.1)),))
    assert scatter.of_mean("latents", 1) == pytest.approx(0.1)
    assert scatter.of_mean("latents", 100) == pytest.approx(0.01)
    common = Noise(variants=(NoiseVariant(name="batch", latents=(0.1, 0.1)),))
    assert common.of_mean("latents", 100) == pytest.approx(0.1)


def moving(speed: int, prompts: int = 3) -> Generated:
    """Videos of three frames, smooth and of many levels, which get brighter downwards by so many levels a frame."""
    ramp = torch.linspace(10, 200, 64).expand(3, 64, 64)
    down = torch.linspace(0, 1, 64).view(1, 64, 1)
    frames = [(ramp + prompt + down * speed * frame).to(torch.uint8) for prompt in range(prompts) for frame in range(3)]
    latents = torch.linspace(0, 1, 64).view(8, 8).expand(prompts, 4, 3, 8, 8).clone()
    return Generated(torch.stack(frames), torch.ones(3 * prompts, dtype=torch.bool), latents, latents[:, None], 3)


def test_noise_of_videos() -> None:
    """Given a variant that moves faster, then each frame's and each prompt's scores are those of its own entries."""
    base, own = moving(10), moving(11)
    scores = Scores(lpips=(0.0,) * 9, clip=(0.0,) * 9, latents=(0.0,) * 3, motion=scoring.motions(own, base))
    record = make_record(prompts=PROMPTS, scores=scores, repeatable=True, frames=3)
    options: dict[str, Any] = {"device": "cuda", "clip": "pocket", "lpips": "st-alex", "batch_size": 1}

    def call(batch: Sequence[int]) -> Generated:
        return own.rows(batch) if len(batch) > 1 else moving(14).rows(batch)

    found = measure(call, record, own, base, on_variant=lambda *_: None, **options)
    counts = {v.name: (len(v.lpips), len(v.clip), len(v.pixels), len(v.latents)) for v in found.variants}
    assert counts == {"again": (6, 6, 6, 2), "batch": (6, 6, 6, 2), "attention": (9, 9, 9, 3)}
    assert of(found, "again", "motion") == of(found, "batch", "motion") == (0.0, 0.0)
    before, after = (scoring.motions(made, base) or () for made in (own, moving(14)))
    expected = [b - a for a, b in zip(before, after, strict=True)]
    assert of(found, "attention", "motion") == pytest.approx(expected)
    assert of(found, "attention", "pixels")[::3] == (0.0,) * 3
    assert found.of_prompt("motion") == pytest.approx(max(expected))
    assert min(expected) > 0.2


def test_a_video_that_breaks_is_named_with_its_frame() -> None:
    """Given a variant whose one frame is black, then it is unsound, and the frame is named."""
    own = moving(10)
    record = make_record(prompts=PROMPTS, scores=UNTRAINED, repeatable=True, frames=3)

    def call(batch: Sequence[int]) -> Generated:
        rows = own.rows(batch)
        images = rows.images.clone()
        images[list(batch).index(1) * 3 + 2 if 1 in batch else 0] = 0
        return Generated(images, rows.finite, rows.latents, rows.trajectory, 3)

    options: dict[str, Any] = {"device": "cuda", "clip": "pocket", "lpips": "st-alex", "batch_size": 4}
    found = measure(call, record, own, own, on_variant=lambda *_: None, **options)
    unsound = {variant.name: variant.unsound for variant in found.variants}
    assert unsound["again"] is None
    assert str(unsound["attention"]).startswith("prompt 1, frame 2: black, ")


def test_images_have_no_noise_of_motion() -> None:
    """Given images, then their noise says nothing of motion."""
    assert {variant.motion for variant in noise(partial(answer, [], together=0.25)).variants} == {UNSET}

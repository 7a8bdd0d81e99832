"""The grammar, the held-out split and the hard negatives."""

from collections import Counter

import pytest
import torch

from training import scenes


def drawn(count: int, seed: int = 0, held: bool | None = None) -> torch.Tensor:
    """Codes of `count` scenes."""
    return scenes.sample(count, torch.Generator().manual_seed(seed), held)


@pytest.mark.parametrize("template", [0, 1])
def test_caption_round_trip(template: int) -> None:
    """A caption parses to the scene that it describes, and that scene has the codes it was drawn from."""
    for row in drawn(200):
        scene = scenes.scene(row)
        assert scene == scenes.parse(scene.caption(template))
        assert row.tolist() == scene.codes().tolist()


def test_caption_reads_as_a_sentence() -> None:
    """The form that people and the builtin prompts rely on."""
    shapes = (scenes.Shape("circle", "red", "large", 0), scenes.Shape("star", "blue", "small", 8))
    scene = scenes.Scene(shapes, "grey", "striped")
    expected = (
        "a large red circle at the top left and a small blue star at the bottom right on a striped grey background"
    )
    assert expected == scene.caption()


@pytest.mark.parametrize("text", ["", "a red circle", "a large red dog at the top on a plain white background"])
def test_parse_refuses_other_text(text: str) -> None:
    """Text outside the grammar is an error, not a guess."""
    with pytest.raises(ValueError, match="not"):
        scenes.parse(text)


def test_held_out_split_is_stable() -> None:
    """The split never changes: every model and score in the zoo depends on it."""
    rows = drawn(20000, seed=1)
    held = scenes.held_out(rows)
    share = float(held.float().mean())
    assert 0.055 < share < 0.070  # 1/16 = 0.0625, standard deviation 0.0017
    assert {text: scenes.parse(text).held_out() for text in HELD} == HELD


HELD = {
    "a large red square at the left and a small orange diamond at the right on a checkered beige background": True,
    "a large cyan circle at the top on a checkered navy background": True,
    "a large red circle in the centre on a plain white background": False,
    "a small blue star at the left and a large green ring at the right on a dotted black background": False,
}


def test_held_out_ignores_the_order_of_naming() -> None:
    """A scene cannot be held out under one caption and trained on under the other."""
    rows = drawn(5000, seed=2)
    assert torch.equal(scenes.held_out(rows), scenes.held_out(scenes.mirrored(rows)))


def test_splits_do_not_overlap() -> None:
    """Training draws no held-out scene, and the held-out draw nothing else."""
    assert not scenes.held_out(drawn(5000, seed=3, held=False)).any()
    assert scenes.held_out(drawn(500, seed=3, held=True)).all()


def test_two_shapes_differ_in_colour() -> None:
    """Otherwise colours could not be swapped, nor shapes told apart by them."""
    rows = drawn(5000, seed=4)
    pairs = rows[rows[:, scenes.COUNT] == 1]
    assert len(pairs) > 1000
    assert not (pairs[:, scenes.COLOUR] == pairs[:, scenes.COLOUR2]).any()


def test_hard_negatives_differ_in_one_attribute() -> None:
    """Each negative describes another scene, one attribute or one swap of colours away."""
    rows = drawn(300, seed=5)
    negatives = scenes.hard_negatives(rows, 16, torch.Generator().manual_seed(0))
    seen: Counter[str] = Counter()
    for row, several in zip(rows, negatives, strict=True):
        for other in several:
            changed = (row != other).nonzero()[:, 0].tolist()
            swap = [scenes.COLOUR, scenes.COLOUR2]
            swapped = changed == swap and row[swap].tolist() == other[[scenes.COLOUR2, scenes.COLOUR]].tolist()
            assert swapped or len(changed) == 1
            assert other.tolist() == scenes.scene(other).codes().tolist()
            assert not torch.equal(other, scenes.mirrored(row[None])[0])
            seen["swap" if swapped else str(changed[0])] += 1
    assert len(scenes.CHANGES) == len(seen)

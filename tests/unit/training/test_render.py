"""The renderer, and the reader that must see what it draws."""

import numpy as np
import pytest
import torch

from training import reader, render, scenes


def test_render_is_deterministic() -> None:
    """The same codes and seed give the same bytes."""
    codes = scenes.sample(8, torch.Generator().manual_seed(0))
    first = render.render(codes, torch.Generator().manual_seed(1))
    assert torch.equal(first, render.render(codes, torch.Generator().manual_seed(1)))


def test_render_range_and_shape() -> None:
    """Images are (N, 3, 128, 128) in [0, 1]."""
    codes = scenes.sample(16, torch.Generator().manual_seed(2))
    image = render.render(codes, torch.Generator().manual_seed(3))
    assert tuple(image.shape) == (16, 3, render.SIDE, render.SIDE)
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1


def test_a_scene_does_not_depend_on_its_batch() -> None:
    """Drawn alone or among others, without jitter, a scene is the same picture."""
    codes = scenes.sample(8, torch.Generator().manual_seed(4))
    together = render.render(codes, None)
    assert torch.equal(render.render(codes[3:4], None)[0], together[3])


def test_shapes_keep_apart_and_inside() -> None:
    """With the largest radii and jitters, two shapes leave a pixel between them and stay in the picture."""
    reach = 1.1 * render.RADII["large"][1] + render.SHIFT  # a diamond's half diagonal, the widest outline
    left, _, right = render.CELL_CENTRES
    assert right - left > 2 * reach
    assert left - reach > 0


def test_reader_reads_rendered_scenes() -> None:
    """Every shape is found with its colour and kind at its place, in jittered scenes of both splits."""
    generator = torch.Generator().manual_seed(6)
    codes = scenes.sample(60, generator, held=None)
    images = render.render(codes, generator).permute(0, 2, 3, 1).double().numpy()
    for row, image in zip(codes, images, strict=True):
        scene = scenes.scene(row)
        shapes = len(scene.shapes)
        expected = reader.Reading((True,) * shapes, (True,) * shapes, True)
        assert expected == reader.compare(image, scene), scene.caption()


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_reader_tells_kinds_apart_under_noise(kind: str) -> None:
    """A little noise and a rim of other colours do not change what is read."""
    scene = scenes.Scene((scenes.Shape(kind, "green", "small", 4),), "white", "dotted")
    image = render.render(scene.codes()[None], None)[0].permute(1, 2, 0).double().numpy()
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 0.04, image.shape), 0, 1)
    assert reader.Reading((True,), (True,), True) == reader.compare(noisy, scene)


def test_reader_sees_what_is_wrong() -> None:
    """Another colour, another kind, a missing shape: each is counted as what it is."""
    shapes = (scenes.Shape("star", "red", "large", 3), scenes.Shape("ring", "blue", "small", 5))
    drawn = scenes.Scene(shapes, "grey", "plain")
    image = render.render(drawn.codes()[None], None)[0].permute(1, 2, 0).double().numpy()
    asked = scenes.parse("a large pink star at the left and a small blue cross at the right on a plain grey background")
    assert reader.Reading((False, True), (True, False), True) == reader.compare(image, asked)
    alone = scenes.parse("a large red star at the top on a plain grey background")
    assert reader.Reading((False,), (False,), False) == reader.compare(image, alone)


def test_reader_finds_nothing_in_black() -> None:
    """An empty image holds no shapes."""
    assert reader.read(np.zeros((128, 128, 3))) == []

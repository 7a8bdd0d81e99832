"""An independent reader of images: which shapes of which colour stand where. Nothing in it is learned.

Each pixel goes to the nearest colour of the palette, pixels of a shape colour are joined into connected components,
and a component's moments are compared with those of the ideal outlines. It shares the palette and the outlines with
the renderer, and nothing with the models that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from training import render, scenes

SMALLEST = 60  # pixels: half the area of the smallest shape, a small cross
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """One shape that was read: its kind and colour in words, centre in pixels (x, y), area in pixels."""

    kind: str
    colour: str
    x: float
    y: float
    area: float


def read(image: Array) -> list[Found]:
    """The shapes in an image of shape (H, W, 3) in [0, 1], largest first."""
    labels = _labels(image)
    shape = labels >= 0
    # Anti-aliased rims pass through other colours: a one-pixel opening removes rims that stand alone.
    shape = ndimage.binary_opening(shape, np.ones((2, 2)))
    parts, count = ndimage.label(shape, np.ones((3, 3)))
    found = []
    for part in range(1, count + 1):
        mask = parts == part
        area = float(mask.sum())
        if area < SMALLEST:
            continue
        inner = ndimage.binary_erosion(mask)
        votes = np.bincount(labels[inner if inner.any() else mask], minlength=len(scenes.COLOURS))
        colour = int(votes.argmax())
        y, x = ndimage.center_of_mass(mask)
        found.append(Found(_kind(mask), scenes.COLOURS[colour], float(x) + 0.5, float(y) + 0.5, area))
    return sorted(found, key=lambda one: -one.area)


def _labels(image: Array) -> NDArray[np.int64]:
    """Index into COLOURS of each pixel's nearest palette colour, -1 where that is a background."""
    shapes = np.array([render.SHAPE_RGB[colour] for colour in scenes.COLOURS])
    base = np.array([render.GROUND_RGB[ground] for ground in scenes.BACKGROUNDS])
    sign = np.where(base.mean(axis=1, keepdims=True) > 0.5, -1.0, 1.0)
    palette = np.concatenate((shapes, base, base + sign * render.CONTRAST, base + sign * render.CONTRAST / 2))
    distance = np.square(image[:, :, None, :] - palette).sum(axis=3)
    nearest = distance.argmin(axis=2)
    return np.where(nearest < len(shapes), nearest, -1)


def features(mask: NDArray[np.bool_]) -> Array:
    """Numbers that tell the outlines apart, whatever the place and size: shape (7,).

    Spread over area; share of the bounding box that is filled; the hole's share; and, about the centre, the strength
    of the outline's third, fourth (signed as well: a diamond is a square turned by 45 degrees) and fifth harmonic.
    """
    rows, columns = np.nonzero(mask)
    y, x = rows - rows.mean(), columns - columns.mean()
    area = float(len(rows))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    hole = float(ndimage.binary_fill_holes(mask).sum()) - area
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    scale = np.sqrt(area)
    values = [
        (x**2 + y**2).mean() / area * 4,
        area / (height * width),
        2 * hole / area,
    ]
    for order, weight in ((3, 4.0), (4, 4.0), (5, 6.0)):
        wave = (radius / scale) ** 2 * np.exp(1j * order * angle)
        mean = complex(wave.mean())
        if order == 4:
            values += [weight * mean.real]
        values += [weight * abs(mean)]
    return np.array(values)


@cache
def _prototypes() -> tuple[tuple[str, Array], ...]:
    """Features of every kind in both sizes, drawn without jitter, by the same segmentation as images are read."""
    result = []
    for size in range(2):
        for kind, name in enumerate(scenes.KINDS):
            row = torch.zeros(1, scenes.FIELDS, dtype=torch.int64)
            row[0, scenes.KIND], row[0, scenes.SIZE], row[0, scenes.PLACE] = kind, size, 4
            image = render.render(row, None)[0].permute(1, 2, 0).double().numpy()
            result.append((name, features(_labels(image) >= 0)))
    return tuple(result)


def _kind(mask: NDArray[np.bool_]) -> str:
    found = features(mask)
    return min(_prototypes(), key=lambda one: float(np.square(one[1] - found).sum()))[0]


@dataclass(frozen=True)
class Reading:
    """An image against its scene, for each shape of the caption: was its colour right, was its kind right.

    `count` says whether the image holds exactly as many shapes as the caption names.
    """

    colours: tuple[bool, ...]
    kinds: tuple[bool, ...]
    count: bool


def compare(image: Array, scene: scenes.Scene) -> Reading:
    """Read an image and look for each shape of the scene in its own cell: the nearest component within 20 pixels."""
    found = read(image)
    colours, kinds = [], []
    for shape in scene.shapes:
        x, y = render.CELL_CENTRES[shape.cell % 3], render.CELL_CENTRES[shape.cell // 3]
        near = [one for one in found if np.hypot(one.x - x, one.y - y) < 20]
        if not near:
            colours.append(False)
            kinds.append(False)
            continue
        best = min(near, key=lambda one: float(np.hypot(one.x - x, one.y - y)))
        colours.append(best.colour == shape.colour)
        kinds.append(best.kind == shape.kind)
    return Reading(tuple(colours), tuple(kinds), len(found) == len(scene.shapes))

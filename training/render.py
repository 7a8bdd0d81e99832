"""Draw scenes: signed distance functions, anti-aliased, vectorised over a batch, on any device.

`place` turns codes into a `Geometry` (positions in pixels, colours in RGB), with small jitters that never make a
caption ambiguous; `draw` turns a geometry into images. A video is a geometry whose centres move between calls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training import scenes

SIDE = 128  # pixels

# Shapes are saturated, backgrounds are not, so that a pixel's colour says which of the two it belongs to.
SHAPE_RGB = {
    "red": (0.88, 0.07, 0.07),
    "orange": (1.00, 0.52, 0.00),
    "yellow": (0.98, 0.90, 0.05),
    "green": (0.08, 0.68, 0.16),
    "cyan": (0.05, 0.85, 0.90),
    "blue": (0.10, 0.25, 0.95),
    "purple": (0.52, 0.10, 0.78),
    "pink": (1.00, 0.40, 0.78),
}
GROUND_RGB = {
    "white": (0.95, 0.95, 0.95),
    "grey": (0.52, 0.52, 0.52),
    "black": (0.06, 0.06, 0.06),
    "beige": (0.88, 0.81, 0.67),
    "brown": (0.40, 0.28, 0.19),
    "navy": (0.14, 0.17, 0.33),
}
CONTRAST = 0.13  # of a pattern's second colour: darker on light grounds, lighter on dark ones
PERIOD = 32  # pixels: four latent cells of a factor-8 VAE

CELL_CENTRES = (33.0, 64.0, 95.0)  # pixels, of the 3 x 3 grid's columns and rows
RADII = {"small": (12.0, 14.0), "large": (22.0, 24.5)}  # pixels
SHIFT = 3.0  # pixels, largest jitter of a centre along each axis
FASTEST = 3.0  # pixels per frame, in clips
TINT = 0.03  # largest jitter of a colour channel


@dataclass(frozen=True)
class Geometry:
    """What `draw` needs, for N scenes: pixels and RGB in [0, 1].

    kinds (N, 2) int64, -1 where there is no second shape; centres (N, 2, 2) as x, y; radii (N, 2);
    colours (N, 2, 3); ground (N, 2, 3) the pattern's two colours; pattern (N,) int64; phase (N, 2) pattern offset.
    """

    kinds: Tensor
    centres: Tensor
    radii: Tensor
    colours: Tensor
    ground: Tensor
    pattern: Tensor
    phase: Tensor


def place(codes: Tensor, generator: torch.Generator | None) -> Geometry:
    """Positions, sizes and colours of (N, FIELDS) codes; `generator` draws the jitters, None leaves them out."""
    device, count = codes.device, codes.shape[0]

    def jitter(*shape: int) -> Tensor:
        """Uniform in [-1, 1]."""
        if generator is None:
            return torch.zeros(count, *shape, device=device)
        return torch.rand(count, *shape, generator=generator, device=device) * 2 - 1

    pair = codes[:, scenes.COUNT] == 1
    pairs = torch.tensor(scenes.PAIRS, device=device)
    cells = pairs[codes[:, scenes.PLACE].clamp(max=len(scenes.PAIRS) - 1)]
    cells = torch.where(pair[:, None], cells, codes[:, scenes.PLACE][:, None])
    grid = torch.tensor(CELL_CENTRES, device=device)
    centres = torch.stack((grid[cells % 3], grid[cells // 3]), dim=2) + SHIFT * jitter(2, 2)

    kinds = codes[:, [scenes.KIND, scenes.KIND2]].clone()
    kinds[:, 1] = torch.where(pair, kinds[:, 1], -1)
    span = torch.tensor([RADII[size] for size in scenes.SIZES], device=device)
    span = span[codes[:, [scenes.SIZE, scenes.SIZE2]]]
    radii = span.mean(dim=2) + (span[..., 1] - span[..., 0]) / 2 * jitter(2)

    palette = torch.tensor([SHAPE_RGB[colour] for colour in scenes.COLOURS], device=device)
    colours = palette[codes[:, [scenes.COLOUR, scenes.COLOUR2]]] + TINT * jitter(2, 3)
    grounds = torch.tensor([GROUND_RGB[ground] for ground in scenes.BACKGROUNDS], device=device)
    base = grounds[codes[:, scenes.BACKGROUND]] + TINT / 2 * jitter(3)
    sign = torch.where(base.mean(dim=1, keepdim=True) > 0.5, -1.0, 1.0)
    ground = torch.stack((base, base + sign * CONTRAST), dim=1)
    return Geometry(
        kinds, centres, radii, colours.clamp(0, 1), ground.clamp(0, 1), codes[:, scenes.PATTERN], SHIFT * jitter(2)
    )


def speeds(geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Pixels per frame of each shape, (N, 2, 2) as x, y: of any direction, none slower than half the fastest."""
    count, device = geometry.kinds.shape[0], geometry.kinds.device
    angle = torch.rand(count, 2, generator=generator, device=device) * (2 * torch.pi)
    speed = FASTEST * (1 - 0.5 * torch.rand(count, 2, generator=generator, device=device))
    return speed[..., None] * torch.stack((angle.cos(), angle.sin()), dim=2)


def moved(geometry: Geometry, shift: Tensor) -> Geometry:
    """The geometry with its shapes moved by `shift` pixels, (N, 2, 2) as x, y."""
    return replace(geometry, centres=geometry.centres + shift)


def draw(geometry: Geometry, side: int = SIDE) -> Tensor:
    """Images of a geometry, shape (N, 3, side, side), float32 in [0, 1]; `side` scales the whole picture."""
    device = geometry.kinds.device
    axis = (torch.arange(side, device=device) + 0.5) * (SIDE / side)
    pixel = SIDE / side
    x, y = axis[None, None, :], axis[None, :, None]
    cover = _pattern(x, y, geometry, pixel)[:, None]
    first, second = geometry.ground[:, 0, :, None, None], geometry.ground[:, 1, :, None, None]
    image = first + (second - first) * cover
    for index in range(2):
        mask = torch.zeros(geometry.kinds.shape[0], side, side, device=device)
        for kind, name in enumerate(scenes.KINDS):
            rows = (geometry.kinds[:, index] == kind).nonzero()[:, 0]
            if rows.numel():
                centre = geometry.centres[rows, index]
                distance = _DISTANCE[name](
                    x - centre[:, 0, None, None],
                    y - centre[:, 1, None, None],
                    geometry.radii[rows, index, None, None],
                )
                mask[rows] = (0.5 - distance / pixel).clamp(0, 1)
        colour = geometry.colours[:, index, :, None, None]
        image = image + (colour - image) * mask[:, None]
    return image


def render(codes: Tensor, generator: torch.Generator | None) -> Tensor:
    """Images of (N, FIELDS) codes, shape (N, 3, SIDE, SIDE), float32 in [0, 1]."""
    return draw(place(codes, generator))


def _pattern(x: Tensor, y: Tensor, geometry: Geometry, pixel: float) -> Tensor:
    """How much of the second ground colour each pixel has, (N, side, side), in [0, 1]."""
    u = x + geometry.phase[:, 0, None, None]
    v = y + geometry.phase[:, 1, None, None]
    # Distance to the nearest edge of a half-period band, positive inside; anti-aliased like the shapes.
    across = _band(u) / pixel
    down = _band(v) / pixel
    stripes = (0.5 + down).clamp(0, 1)
    columns = (0.5 + across).clamp(0, 1)
    checks = stripes + columns - 2 * stripes * columns
    dots = (0.5 - (torch.hypot(_fold(u), _fold(v)) - PERIOD / 4.5) / pixel).clamp(0, 1)
    kind = geometry.pattern[:, None, None]
    cover = torch.where(kind == 1, stripes, torch.zeros_like(dots))
    cover = torch.where(kind == 2, checks, cover)
    return torch.where(kind == 3, dots, cover)


def _fold(t: Tensor) -> Tensor:
    """Signed distance to the nearest centre of a period, pixels."""
    return torch.remainder(t, PERIOD) - PERIOD / 2


def _band(t: Tensor) -> Tensor:
    return PERIOD / 4 - _fold(t).abs()


def _circle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.hypot(x, y) - r


def _square(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.86 * r


def _diamond(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (x.abs() + y.abs() - 1.1 * r) / 2**0.5


def _triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    y = y - 0.3 * r  # the bounding box, not the centre of gravity, sits on the cell's centre
    return torch.maximum(y, 0.75**0.5 * x.abs() - y / 2) - 0.6 * r


def _ring(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.76 * r).abs() - 0.26 * r


def _cross(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    a, b = x.abs(), y.abs()
    return torch.minimum(torch.maximum(a - 0.32 * r, b - r), torch.maximum(a - r, b - 0.32 * r))


def _star(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Five-pointed star, point up: the plane is folded into one tenth, where the outline is a single segment."""
    cos, sin = 0.809016994375, 0.587785252292
    px, py = x.abs(), -y
    fold = 2 * (cos * px - sin * py).clamp(min=0)
    px, py = px - fold * cos, py + fold * sin
    fold = 2 * (-cos * px - sin * py).clamp(min=0)
    px, py = px + fold * cos, py + fold * sin
    outer = 1.2 * r
    px, py = px.abs(), py - outer
    ax, ay = 0.46 * sin, 0.46 * cos - 1
    along = ((px * ax + py * ay) / (ax * ax + ay * ay)).clamp(min=0)
    along = torch.minimum(along, outer)
    return torch.hypot(px - ax * along, py - ay * along) * torch.sign(py * ax - px * ay)


_DISTANCE = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "ring": _ring,
    "cross": _cross,
    "star": _star,
}

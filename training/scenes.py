"""The grammar of the pocket scenes: attributes, captions, the held-out split and hard negatives.

A scene is one or two coloured shapes on a patterned background. Its attributes exist in two forms: `Scene`, a frozen
dataclass of words, for people and tests; and a row of integer codes, for drawing millions of them as tensors on any
device. `training.render` draws a row; nothing else decides what a caption may say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

KINDS = ("circle", "square", "triangle", "diamond", "ring", "cross", "star")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
CELLS = (
    "at the top left", "at the top", "at the top right",
    "at the left", "in the centre", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
BACKGROUNDS = ("white", "grey", "black", "beige", "brown", "navy")
PATTERNS = ("plain", "striped", "checkered", "dotted")

# Two shapes share an image only where they cannot touch: facing each other across the centre. Neighbours in this
# tuple are each other's mirror image, so `place ^ 1` is the same pair of cells named in the other order.
PAIRS = ((3, 5), (5, 3), (1, 7), (7, 1), (0, 8), (8, 0), (2, 6), (6, 2))

# The columns of a row of codes. A scene of one shape has zeros in the second shape's columns.
COUNT, KIND, COLOUR, SIZE, KIND2, COLOUR2, SIZE2, PLACE, BACKGROUND, PATTERN = range(10)
FIELDS = 10
_RADIX = (2, len(KINDS), len(COLOURS), 2, len(KINDS), len(COLOURS), 2, 16, len(BACKGROUNDS), len(PATTERNS))

HELD_OUT_SHARE = 16  # one scene in so many is never seen in training


@dataclass(frozen=True)
class Shape:
    """One shape in words: `kind` of KINDS, `colour` of COLOURS, `size` of SIZES, `cell` an index into CELLS."""

    kind: str
    colour: str
    size: str
    cell: int

    def phrase(self) -> str:
        """The noun phrase of the caption, as "a large red circle at the top left"."""
        return f"a {self.size} {self.colour} {self.kind} {CELLS[self.cell]}"


@dataclass(frozen=True)
class Scene:
    """One scene in words: one or two shapes, in the order the caption names them, and the background."""

    shapes: tuple[Shape, ...]
    background: str
    pattern: str

    def caption(self, template: int = 0) -> str:
        """The scene's caption, lower case: template 0 names the shapes first, template 1 the background first."""
        shapes = " and ".join(shape.phrase() for shape in self.shapes)
        ground = f"a {self.pattern} {self.background} background"
        return f"{shapes} on {ground}" if template == 0 else f"{ground} with {shapes}"

    def codes(self) -> Tensor:
        """The scene as a row of codes, shape (FIELDS,), int64."""
        first = self.shapes[0]
        row = torch.zeros(FIELDS, dtype=torch.int64)
        row[COUNT] = len(self.shapes) - 1
        row[KIND], row[COLOUR], row[SIZE] = _shape_codes(first)
        row[PLACE] = first.cell
        if len(self.shapes) == 2:
            second = self.shapes[1]
            row[KIND2], row[COLOUR2], row[SIZE2] = _shape_codes(second)
            row[PLACE] = PAIRS.index((first.cell, second.cell))
        row[BACKGROUND] = BACKGROUNDS.index(self.background)
        row[PATTERN] = PATTERNS.index(self.pattern)
        return row

    def held_out(self) -> bool:
        """Whether the scene belongs to the split that no model was trained on."""
        return bool(held_out(self.codes()[None])[0])


def _shape_codes(shape: Shape) -> Tensor:
    return torch.tensor([KINDS.index(shape.kind), COLOURS.index(shape.colour), SIZES.index(shape.size)])


def scene(row: Tensor) -> Scene:
    """The scene in words of one row of codes, shape (FIELDS,)."""
    code = row.tolist()
    cells = PAIRS[code[PLACE]] if code[COUNT] else (code[PLACE],)
    columns = ((KIND, COLOUR, SIZE), (KIND2, COLOUR2, SIZE2))
    shapes = tuple(
        Shape(KINDS[code[kind]], COLOURS[code[colour]], SIZES[code[size]], cell)
        for cell, (kind, colour, size) in zip(cells, columns, strict=False)
    )
    return Scene(shapes, BACKGROUNDS[code[BACKGROUND]], PATTERNS[code[PATTERN]])


def parse(caption: str) -> Scene:
    """The scene that a caption of either template describes. Raises ValueError for text outside the grammar."""
    if caption.startswith(tuple(f"a {pattern} " for pattern in PATTERNS)):
        ground, _, shapes = caption.partition(" background with ")
    else:
        shapes, _, ground = caption.removesuffix(" background").rpartition(" on ")
    words = ground.split()
    if len(words) != 3:
        raise ValueError(f"not a caption of this grammar: {caption!r}")
    parsed = []
    for phrase in shapes.split(" and "):
        parts = phrase.split(maxsplit=4)
        if len(parts) != 5 or parts[4] not in CELLS:
            raise ValueError(f"not a caption of this grammar: {caption!r}")
        parsed.append(Shape(parts[3], parts[2], parts[1], CELLS.index(parts[4])))
    found = Scene(tuple(parsed), words[2], words[1])
    if caption not in (scene(found.codes()).caption(0), scene(found.codes()).caption(1)):
        raise ValueError(f"not a caption of this grammar: {caption!r}")
    return found


def _keys(codes: Tensor) -> Tensor:
    """Mixed-radix number of each row, shape (N,), int64."""
    key = torch.zeros(codes.shape[0], dtype=torch.int64, device=codes.device)
    for column, radix in enumerate(_RADIX):
        key = key * radix + codes[:, column]
    return key


def mirrored(codes: Tensor) -> Tensor:
    """The same scenes with two shapes named in the other order; rows of one shape are returned as they are."""
    pair = codes[:, COUNT] == 1
    other = codes.clone()
    for first, second in ((KIND, KIND2), (COLOUR, COLOUR2), (SIZE, SIZE2)):
        other[:, first] = torch.where(pair, codes[:, second], codes[:, first])
        other[:, second] = torch.where(pair, codes[:, first], codes[:, second])
    other[:, PLACE] = torch.where(pair, codes[:, PLACE] ^ 1, codes[:, PLACE])
    return other


def held_out(codes: Tensor) -> Tensor:
    """Which rows of (N, FIELDS) codes are held out, shape (N,), bool; the order of naming does not matter.

    A fixed integer hash of the attributes, equal on every device and in every version.
    """
    key = torch.minimum(_keys(codes), _keys(mirrored(codes)))
    # Multiply, xor-shift, multiply in wrapping 64-bit arithmetic (the finaliser of splitmix64, with odd constants
    # that fit a signed integer), so that neighbouring keys land in unrelated places.
    for multiplier in (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB):
        key = key * multiplier
        key = key ^ ((key >> 31) & 0x1FFFFFFFF)
    return ((key >> 20) & 0xFFFF) % HELD_OUT_SHARE == 0


def sample(count: int, generator: torch.Generator, held: bool | None = False, pairs: float = 0.6) -> Tensor:
    """Draw scenes of a split: codes of shape (count, FIELDS), int64, on the generator's device.

    `held` is False for the training split, True for the held-out one, None for both; `pairs` is the share of scenes
    with two shapes, which always differ in colour.
    """
    parts: list[Tensor] = []
    missing = count
    while missing > 0:
        drawn = int(missing * (HELD_OUT_SHARE * 1.3 if held else 1.2)) + 64
        codes = _draw(drawn, generator, pairs)
        if held is not None:
            codes = codes[held_out(codes) == held]
        parts.append(codes[:missing])
        missing -= parts[-1].shape[0]
    return torch.cat(parts)


def _draw(count: int, generator: torch.Generator, pairs: float) -> Tensor:
    device = generator.device

    def uniform(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator, device=device)

    codes = torch.stack([uniform(radix) for radix in _RADIX], dim=1)
    pair = torch.rand(count, generator=generator, device=device) < pairs
    codes[:, COUNT] = pair.long()
    codes[:, PLACE] = torch.where(pair, codes[:, PLACE] % len(PAIRS), uniform(len(CELLS)))
    step = 1 + uniform(len(COLOURS) - 1)
    codes[:, COLOUR2] = (codes[:, COLOUR] + step) % len(COLOURS)
    codes[:, [KIND2, COLOUR2, SIZE2]] *= pair.long()[:, None]
    return codes


# What a hard negative changes: one attribute of the scene, or which of the two shapes has which colour.
CHANGES = ("colour", "kind", "size", "colour2", "kind2", "size2", "place", "background", "pattern", "swap")
_CHANGED = (COLOUR, KIND, SIZE, COLOUR2, KIND2, SIZE2, PLACE, BACKGROUND, PATTERN)
_PAIR_ONLY = torch.tensor([change in ("colour2", "kind2", "size2", "swap") for change in CHANGES])


def hard_negatives(codes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` scenes for each row that differ from it in exactly one attribute, shape (N, count, FIELDS), int64."""
    rows = codes.repeat_interleave(count, dim=0)
    device, size = codes.device, rows.shape[0]
    pair = rows[:, COUNT] == 1
    change = torch.randint(len(CHANGES), (size,), generator=generator, device=device)
    single = torch.tensor([0, 1, 2, 6, 7, 8], device=device)
    fallback = single[torch.randint(6, (size,), generator=generator, device=device)]
    change = torch.where(~pair & _PAIR_ONLY.to(device)[change], fallback, change)
    dice = torch.randint(1 << 30, (size,), generator=generator, device=device)
    result = rows.clone()
    for index, column in enumerate(_CHANGED):
        chosen = change == index
        radix = torch.full_like(dice, _RADIX[column])
        if column == PLACE:
            radix = torch.where(pair, len(PAIRS), len(CELLS))
        value = (rows[:, column] + 1 + dice % (radix - 1)) % radix
        if column in (COLOUR, COLOUR2):
            # Two shapes never share a colour: draw among the colours that neither has.
            other = rows[:, COLOUR2 if column == COLOUR else COLOUR]
            gap = (other - rows[:, column]) % len(COLOURS)
            step = 1 + dice % (len(COLOURS) - 2)
            apart = (rows[:, column] + step + (step >= gap).long()) % len(COLOURS)
            value = torch.where(pair, apart, value)
        result[:, column] = torch.where(chosen, value, rows[:, column])
    swap = change == len(CHANGES) - 1
    result[:, COLOUR] = torch.where(swap, rows[:, COLOUR2], result[:, COLOUR])
    result[:, COLOUR2] = torch.where(swap, rows[:, COLOUR], result[:, COLOUR2])
    return result.view(codes.shape[0], count, FIELDS)


def recoloured(original: Scene, colour: str) -> Scene:
    """The scene with its first shape in another colour: the smallest edit that a person sees at once."""
    return replace(original, shapes=(replace(original.shapes[0], colour=colour), *original.shapes[1:]))

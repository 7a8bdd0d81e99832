"""Is it a picture at all? NaN, black, flat or noise are hard failures: no budget and no accepted baseline excuses them.

Each threshold stands beside what it was derived from: 200 rendered scenes, 60 of them through an autoencoder (factor 8,
4 latents, 35 dB), the same with Gaussian noise added, uniform and Gaussian noise, Gaussian latents decoded by that
autoencoder, checkerboards, and 1/f textures. All 128 px a side, values in [0, 1], smallest to largest of each group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from torch.nn import functional

from qregress.metrics.weights import MetricError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["nan", "black", "flat", "noise"]

# Brightest of all but 0.1 % of the values. Scenes 0.65 and more, also on black ground; black frames 0.
_BLACK = 0.03
# Largest standard deviation of a channel. Scenes 0.059 and more; decoded zeros 0.012, decoded latents of a tenth of
# their strength 0.022 and less; grey with noise of 0.02 is flat too.
_FLAT = 0.03
# Largest autocorrelation at 1 to 4 px. Noise 0.024 and less; grass-like texture (amplitude 1/sqrt(f)) 0.29 and more;
# checkerboards 0.76 and more. Of a scene under Gaussian noise (median): 0.28 at a strength of 0.2, 0.15 at 0.3, 0.05 at
# 0.5, where only the largest shapes can still be seen.
_GRAIN = 0.1
# Decoded noise is blotchy: smooth within a cell of the autoencoder, unrelated from cell to cell, equal everywhere and
# colourful. No single number tells it; all four together do, over the means of cells:
_CELLS = (8, 16, 32)  # px, the factors of common autoencoders
_FEWEST = 16  # cells a side; with fewer the four numbers scatter too much
_BLOTCH_CORRELATION = 0.5  # of neighbouring cells. Decoded noise 0.22 to 0.47; colourful 1/f texture 0.53 and more
_BLOTCH_KURTOSIS = 4.0  # Decoded noise 1.9 to 3.94, flat in between; scenes 4.3 and more, as most cells are ground
_BLOTCH_UNEVENNESS = 0.3  # of the spread within 16 px blocks. Decoded noise 0.16 to 0.29; scenes 0.28 and more
_BLOTCH_CHROMA = 0.15  # share of the variance that is not brightness. Decoded noise 0.19 and more; grass 0.05 and less
_BLOCK = 16  # px
# Largest autocorrelation of latents between neighbours. Gaussian noise, 4 x 16 x 16: 0.13 and less, median 0.04; of
# scenes the median is 0.54. Latents only acquit: some scenes (fine checkers) have latents as white as noise.
_LATENT_CORRELATION = 0.15

_SLACK = 1.5  # a reference that comes this near to a threshold excuses an image beyond it


class Problem(msgspec.Struct, frozen=True):
    """Why an image is none: the kind, and the measured value with its threshold in words."""

    kind: Kind
    detail: str


def inspect(image: Tensor, *, latents: Tensor | None = None, reference: Tensor | None = None) -> list[Problem]:
    """What is wrong with one image; an empty list if nothing is.

    ``image`` is float [3, h, w] in [0, 1]. ``latents`` are what it was decoded from, of any shape and dtype: they show
    a NaN that the conversion to 8 bits has turned into black, and where they are [channels, h', w'] they have a say in
    what is decoded noise. ``reference`` is the healthy image of the same prompt: a prompt may ask for the dark, the
    empty or the noisy, and what the reference shows too is no problem of the image. Raises ``MetricError`` for shapes.
    """
    for what, tensor in (("image", image), ("reference", reference)):
        if tensor is not None and (tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape):  # noqa: PLR2004
            raise MetricError(f"sanity: expected one {what} of shape [3, height, width], found {list(tensor.shape)}")
    problems = [
        Problem("nan", f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} values of the {what} are not finite")
        for what, tensor in (("image", image), ("latents", latents))
        if tensor is not None and not bool(tensor.isfinite().all())
    ]
    if not bool(image.isfinite().all()):
        return problems
    found = _look(image, None if problems else latents, 1.0)
    if found and reference is not None and bool(reference.isfinite().all()):
        excused = _look(reference, None, _SLACK)
        found = found if excused is None or excused.kind != found.kind else None
    return [*problems, found] if found else problems


def _look(image: Tensor, latents: Tensor | None, slack: float) -> Problem | None:
    """The first of black, flat and noise that holds; a ``slack`` above 1 calls more images so."""
    image = image.detach().float().cpu()
    values = image.flatten()
    bright = float(values.kthvalue(max(1, int(0.999 * values.numel()))).values)
    if bright <= _BLACK * slack:
        return Problem("black", f"99.9 % of the values are at most {bright:.3f} (black: {_BLACK} or less)")
    spread = float(image.std((1, 2), correction=0).max())
    if spread <= _FLAT * slack:
        return Problem("flat", f"standard deviation {spread:.4f} (flat: {_FLAT} or less)")
    grain = max((abs(value) for lag in (1, 2, 3, 4) for value in _autocorrelation(image, lag)), default=1.0)
    if grain <= _GRAIN * slack:
        return Problem("noise", f"neighbouring pixels correlate by {grain:.3f} (noise: {_GRAIN} or less)")
    if latents is None or _are_white(latents):
        for cell in _CELLS:
            if min(image.shape[1:]) >= cell * _FEWEST and _is_blotchy(image, cell, slack):
                return Problem("noise", f"unrelated blotches of {cell} px in all colours, as noise decodes to")
    return None


def _autocorrelation(planes: Tensor, lag: int) -> list[float]:
    """Of [channels, h, w] at ``lag`` down and across, variances of the channels added up; nothing where too small."""
    if min(planes.shape[1:]) <= lag:
        return []
    centred = planes - planes.mean((1, 2), keepdim=True)
    variance = max(float(centred.square().mean()), 1e-12)
    down = float((centred[:, lag:] * centred[:, :-lag]).mean())
    across = float((centred[:, :, lag:] * centred[:, :, :-lag]).mean())
    return [down / variance, across / variance]


def _is_blotchy(image: Tensor, cell: int, slack: float) -> bool:
    """Whether the means of cells are unrelated, evenly spread and colourful (see the thresholds)."""
    means = functional.avg_pool2d(image[None], cell)[0]
    if sum(_autocorrelation(means, 1)) / 2 > _BLOTCH_CORRELATION * slack:
        return False
    centred = means - means.mean((1, 2), keepdim=True)
    variance = centred.square().mean()
    kurtosis = float(centred.pow(4).mean() / variance.square().clamp(min=1e-24))
    brightness = centred.mean(0, keepdim=True)
    chroma = float((centred - brightness).square().mean() / variance.clamp(min=1e-12))
    block = _BLOCK * cell // _CELLS[0]
    blocks = functional.unfold(image[None], block, stride=block)[0].reshape(3, block * block, -1)
    spreads = blocks.var(1, correction=0).sum(0).sqrt()
    unevenness = float(spreads.std() / spreads.mean().clamp(min=1e-12))
    return (
        kurtosis <= _BLOTCH_KURTOSIS * slack
        and unevenness <= _BLOTCH_UNEVENNESS * slack
        and chroma >= _BLOTCH_CHROMA / slack
    )


def _are_white(latents: Tensor) -> bool:
    """Whether latents may be noise: [channels, h, w] with unrelated neighbours, or of a form that does not tell."""
    if latents.ndim != 3 or min(latents.shape[1:]) < _FEWEST:  # noqa: PLR2004
        return True
    correlations = _autocorrelation(latents.detach().float().cpu(), 1)
    return max(abs(value) for value in correlations) <= _LATENT_CORRELATION

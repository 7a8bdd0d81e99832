"""A reference's own images against the accepted ones."""

from __future__ import annotations

import pytest

from qregress.judge.history import History
from qregress.judge.regression import drift
from qregress.judge.verdict import judge
from qregress.record import Noise
from qregress.store.accept import as_accepted
from tests.making import make_noise
from tests.unit.judge.making import MISSING, accepted, reference, scored, sure


def test_drift_equal_bits() -> None:
    """Given the accepted images to the bit, then it passes, and no image is opened."""

    def never() -> tuple[float, ...]:
        raise AssertionError

    found = sure(drift(reference(), accepted(reference(), moved=never)))
    assert (found.verdict, found.value, found.why) == ("pass", 0.0, "the accepted images, bit by bit")


@pytest.mark.parametrize(
    ("moved", "noise", "expected"),
    [
        ((0.5, 0.5), None, "pass"),
        ((0.51, 0.51), None, "fail"),
        ((0.0, 1.0), None, "pass"),
        ((0.0, 2.01), None, "fail"),
        ((2.0, 2.0), make_noise(0.5, 0.5, score="pixels"), "pass"),
        ((2.01, 2.01), make_noise(0.5, 0.5, score="pixels"), "fail"),
        ((255.0, 255.0), make_noise(0.5, 0.5, score="pixels"), "fail"),
    ],
)
def test_drift_of_images(moved: tuple[float, ...], noise: Noise | None, expected: str) -> None:
    """Given images that moved, then half a level in the mean and k times the noise are allowed, four floors in one."""
    found = sure(drift(reference("9"), accepted(reference(), noise, moved=lambda: moved)))
    assert found.verdict == expected
    assert f"moved by {sum(moved) / 2:.2f} levels of 8 bits in the mean and {max(moved):.2f} in the worst" in found.why


def test_drift_with_digests_only() -> None:
    """Given a store without images, then other bits are void; whether the latents are the same is said."""
    found = sure(drift(reference("9"), accepted(reference())))
    assert found.verdict == "void"
    assert found.why.startswith("its latents are the accepted ones, its images are not, and only digests are kept")
    found = sure(drift(reference("9", latents_sha256="8" * 64), accepted(reference())))
    assert found.why.startswith("its latents and images are others")


def test_drift_without_digests() -> None:
    """Given records without digests of images, then nothing is taken for equal."""
    unknown = reference(images_sha256=None)
    entry = as_accepted(unknown, judge(unknown, None, {}))
    assert sure(drift(unknown, History(entry))).verdict == "void"


def test_drift_new() -> None:
    """Given no baseline, then it is new; of a cell that is no reference there is no such check."""
    assert sure(drift(reference(), MISSING)).verdict == "new"
    names = [check.name for check in judge(scored(), None, {}, history=MISSING).checks]
    assert names == ["quality.sanity", "regression.lpips"]
    assert "drift.reference" in [check.name for check in judge(reference(), None, {}, history=MISSING).checks]


def test_drift_of_videos() -> None:
    """Given a reference's frames that moved, then mean and worst frame are limited, with the noise of its prompts."""
    noise = make_noise(*(0.5, -0.5) * 3, score="pixels")
    was, now = (reference(digit, frames=3) for digit in "19")
    found = sure(drift(now, accepted(was, noise, moved=lambda: (0.1,) * 5 + (9.0,))))
    assert (found.verdict, found.worst) == ("fail", 9.0)
    assert found.value == pytest.approx(9.5 / 6)
    assert found.limit == pytest.approx(3 * 0.5 / 2**0.5 + 0.5)

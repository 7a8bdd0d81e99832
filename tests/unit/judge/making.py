"""What the tests of regression checks share: records with the figures that are compared, and accepted ones."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from qregress.judge.history import History
from qregress.judge.regression import clip, coverage, latents, lpips, memory, motion
from qregress.judge.timing_regression import latency
from qregress.judge.verdict import judge
from qregress.record import Check, Coverage, ModuleCoverage, Noise, Record
from qregress.store.accept import as_accepted
from tests.making import REFERENCE, make_acceptable, make_fingerprint, make_memory, make_scores, make_timing

MISSING = History(None, "no baselines in baselines/")
CHECKS = {
    "lpips": lpips,
    "clip": clip,
    "latents": latents,
    "motion": motion,
    "memory": memory,
    "latency": latency,
    "coverage": coverage,
}
FIGURES = ("scores", "memory", "timing", "coverage")


def accepted(record: Record, noise: Noise | None = None, **history: Any) -> History:
    """As if the record had been accepted, with that noise floor."""
    kept = make_acceptable(record.id, noise=noise, **{f: getattr(record, f) for f in FIGURES})
    return History(as_accepted(kept, judge(kept, None, {})), **history)


def scored(**scores: Any) -> Record:
    """A record of int8 with these scores."""
    return make_acceptable(scores=make_scores(**scores))


def manifest(*modules: tuple[str, str | None], component: str = "transformer") -> dict[str, Coverage]:
    """Of one component: the tensor class of each module, and what it is quantized to."""
    made = tuple(
        ModuleCoverage(
            name=f"blocks.{at}", module="Linear", expected="int8", found=found, tensor=kind, dtype="float16", bytes=64
        )
        for at, (kind, found) in enumerate(modules)
    )
    return {component: Coverage(modules=made, asked="int8")}


SCORES: dict[str, Any] = {"clip": (30.0, 30.0), "latents": (0.1, 0.1), "motion": (0.2, 0.2)}
INT8_CLASS, MARLIN = ("WeightQBytesTensor", "int8"), ("MarlinInt8Tensor", "int8")


def full(**fields: Any) -> Record:
    """A record with every figure that is compared."""
    given: dict[str, Any] = {
        "scores": make_scores(**SCORES),
        "memory": make_memory(10),
        "timing": make_timing(1.0, 1.0),
        "coverage": manifest(INT8_CLASS, INT8_CLASS),
    }
    return make_acceptable(**(given | fields))


def sure(check: Check | None) -> Check:
    """A check that was made."""
    assert check is not None
    return check


def timed(seconds: float, pairs: int = 8, **where: Any) -> Record:
    """A record with pairs without noise, the reference at one second."""
    return make_acceptable(timing=make_timing(seconds, 1.0, pairs), fingerprint=make_fingerprint(**where))


def reference(images: str = "1", **fields: Any) -> Record:
    """A reference with two images of that digest."""
    given: dict[str, Any] = {"images": ("images/00.png", "images/01.png"), "images_sha256": images * 64}
    return make_acceptable(REFERENCE, **(given | fields))


#: A kind of GPU.
H100: dict[str, Any] = {"device_class": "cuda-nvidia-h100-79gib", "name": "NVIDIA H100"}


def on_cuda(
    wall: float,
    busy_s: float,
    reference: float = 1.0,
    host: str = "a host",
    disturbed: tuple[str, ...] = (),
    launch_s: tuple[float, ...] | UnsetType = (8e-6, 9e-6, 20e-6, 8e-6, 9e-6),
    profiled: bool = True,
    **where: Any,
) -> Record:
    """A cell on an H100 whose reference takes a second and is busy for all but a twentieth of it."""
    timing = make_timing(
        wall,
        reference,
        busy_s=(busy_s, 1.01 * busy_s) if profiled else UNSET,
        reference_busy_s=(0.95, 0.96) if profiled else UNSET,
        disturbed=disturbed,
        launch_s=launch_s,
    )
    return make_acceptable(timing=timing, fingerprint=make_fingerprint(**(H100 | {"host": host} | where)))


def remembered(record: Record) -> History:
    """As if it had been accepted there."""
    return History(as_accepted(record, judge(record, None, {})))

"""What one run of one cell left."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from qregress.record.asked import Asked, Fingerprint
from qregress.record.base import SCHEMA, Data, Status
from qregress.record.measured import Memory, Noise, Scores, Timing, Trained
from qregress.record.proof import Blame, Coverage, LayerFidelity, Roundtrip


class Record(Data, frozen=True, kw_only=True):
    """All that one run of one cell produced. Images and latents lie beside it as files.

    ``latents_sha256``: of the final latents' bytes; ``images_sha256``: of the images' pixels, all in one. ``frames``:
    how many of ``images`` belong to each prompt, one after the other; ``UNSET``: one. ``fidelity``: of each quantized
    layer, by component. ``beside``: scores against the FP16 reference, where ``scores`` are against the unquantized
    pipeline in the setting's own dtype. ``calibrated``: from how many prompts, the workload's first with their own
    seeds, scales of activations were taken. ``trained``: what training did to denoisers. ``UNSET``: not asked for.
    ``seconds``: wall time of all of it; ``spent``: of that on ``load``, ``quantize``, ``calls`` of the pipeline,
    ``proof`` (manifests, and comparing layers in the midst of a call), ``scores``, ``files`` (waiting
    for what is written beside the proof or, of a reference, beside profiled calls) and, on CUDA, moving other weights
    ``aside``, or waiting for their copies, and starting and reading the ``profiler``.
    ``source``: of a repository its commit, of random weights their seed.
    """

    schema: int = SCHEMA
    id: str
    pipeline: str
    source: str | UnsetType = UNSET
    setting: str
    workload: str
    status: Status
    message: str | None = None
    log: str | None = None
    prompts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    latents_sha256: str | None = None
    images_sha256: str | None = None
    repeatable: bool | None = None
    reference_repeatable: bool | None = None
    memory: Memory | None = None
    timing: Timing | None = None
    coverage: dict[str, Coverage] = field(default_factory=dict)
    scores: Scores | None = None
    fingerprint: Fingerprint | None = None
    asked: Asked | None = None
    noise: Noise | None = None
    seconds: float = 0.0
    spent: dict[str, float] | UnsetType = UNSET
    frames: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    fidelity: dict[str, tuple[LayerFidelity, ...]] | UnsetType = UNSET
    beside: Scores | UnsetType = UNSET
    roundtrip: Roundtrip | UnsetType = UNSET
    calibrated: int | UnsetType = UNSET
    trained: dict[str, Trained] | UnsetType = UNSET
    blame: Blame | UnsetType = UNSET

    @property
    def draws(self) -> bool:
        """Whether its images are of something: what random weights draw is noise, in each run and setting."""
        return bool(self.images) and self.scores is not None and self.scores.note is None

"""What was measured of a cell: bytes, seconds, scores of its images and their noise floor, and what training did."""

from __future__ import annotations

from math import sqrt
from statistics import fmean

from msgspec import UNSET, UnsetType

from qregress.metrics.weights import WeightsId
from qregress.record.base import Data
from qregress.stats import low_quantile


class Memory(Data, frozen=True, kw_only=True):
    """Bytes on the device, of the cell alone.

    ``storage_bytes``: parameters and buffers, tensor subclasses unwrapped. ``static_bytes``: that, and what loading,
    quantizing and running left allocated beside it (what published tables call memory). ``peak_bytes``: the most
    allocated while running. Of a CUDA device these are bytes that were asked for, not the blocks that they lie in.
    ``reserved_bytes``: the most that a caching allocator held; ``None`` where that was not measured alone.
    ``load_peak_bytes``: the most allocated while copying and quantizing; ``None`` for the reference, whose files are
    memory-mapped.
    """

    storage_bytes: int
    static_bytes: int
    peak_bytes: int
    reserved_bytes: int | None
    load_peak_bytes: int | None
    components: dict[str, int]


class Stages(Data, frozen=True, kw_only=True):
    """Where the time of a call goes, in seconds: until the first call of a denoiser, each of ``steps``, and the rest.

    ``step_s``: a mean over the steps of a call. On CUDA as the device's own queue saw it.
    """

    encode_s: float
    step_s: float
    steps: int
    decode_s: float


class Timing(Data, frozen=True, kw_only=True):
    """Wall seconds of whole pipeline calls. Entry ``i`` of both lists belongs to the same interleaved pair.

    ``busy_s``, ``reference_busy_s``: seconds in which a CUDA device was busy, of further calls that were profiled; as
    above one entry of each is of one pair. ``busy_steps``: they are of text encoding and so many denoising steps, told
    by the first few; unset: of whole calls. ``stages``, ``reference_stages``: of the samples, the low quantile of each.
    ``disturbed``: what made the device another one while samples were taken, in words; ``unwatched``: what of that
    nobody could see. ``launch_s``: launch overhead, seconds in which the host of a CUDA device launches one of
    the smallest kernels, before each pair.
    """

    samples_s: tuple[float, ...]
    reference_s: tuple[float, ...] = ()
    busy_s: tuple[float, ...] | UnsetType = UNSET
    reference_busy_s: tuple[float, ...] | UnsetType = UNSET
    busy_steps: int | UnsetType = UNSET
    stages: Stages | UnsetType = UNSET
    reference_stages: Stages | UnsetType = UNSET
    disturbed: tuple[str, ...] | UnsetType = UNSET
    unwatched: tuple[str, ...] | UnsetType = UNSET
    launch_s: tuple[float, ...] | UnsetType = UNSET

    @property
    def host_bound(self) -> float | None:
        """The share of what was profiled in which the device waits for its host; ``None`` where that is not known."""
        return self._waiting(self.busy_s, self.samples_s, self.stages)

    @property
    def reference_host_bound(self) -> float | None:
        """The same of the reference beside it."""
        return self._waiting(self.reference_busy_s, self.reference_s, self.reference_stages)

    @property
    def busy_ratio(self) -> float | None:
        """How many times longer than the reference the cell keeps a device busy, at its best; ``None``: not known."""
        if not self.busy_s or not self.reference_busy_s:
            return None
        return min(self.busy_s) / min(self.reference_busy_s)

    def _waiting(
        self, busy_s: tuple[float, ...] | UnsetType, samples_s: tuple[float, ...], stages: Stages | UnsetType
    ) -> float | None:
        if not busy_s or not samples_s:
            return None
        wall = low_quantile(samples_s)
        if self.busy_steps is not UNSET:
            if stages is UNSET:
                return None
            wall = stages.encode_s + self.busy_steps * stages.step_s
        return max(0.0, 1 - min(busy_s) / wall)


class Problem(Data, frozen=True, kw_only=True):
    """What the sanity check saw: which prompt, which frame of its video, what kind, in words."""

    prompt: int
    kind: str
    detail: str
    frame: int | UnsetType = UNSET


class Scores(Data, frozen=True, kw_only=True):
    """Numbers of the images, against the reference image of the same prompt, or frame of its video.

    One entry per image: ``lpips``; ``clip`` and ``clip_reference`` (100 x cosine); ``psnr_db`` (``None``: identical);
    ``ssim``. One per prompt: ``latents`` (relative L2 of the final latents); ``motion`` of videos (relative L2 of the
    differences of neighbouring frames). ``trajectory``: as ``latents``, per step, mean over prompts. ``None`` in
    either: not finite.
    """

    lpips: tuple[float, ...] = ()
    clip: tuple[float, ...] = ()
    clip_reference: tuple[float, ...] = ()
    psnr_db: tuple[float | None, ...] = ()
    ssim: tuple[float, ...] = ()
    latents: tuple[float | None, ...] = ()
    trajectory: tuple[float | None, ...] = ()
    problems: tuple[Problem, ...] = ()
    weights: tuple[WeightsId, ...] = ()
    note: str | None = None
    motion: tuple[float, ...] | UnsetType = UNSET


class NoiseVariant(Data, frozen=True, kw_only=True):
    """A change that may not matter, and by how much it moved each score of each prompt, with its sign.

    One entry per image or per prompt, as in ``Scores``. ``clip`` is in cosine; ``pixels`` the root mean square
    difference of the images in levels of 8 bits. Empty: not scored. ``unsound``: it gave what is no image, as an
    overflow does: no change that may not matter, and no noise.
    """

    name: str
    lpips: tuple[float, ...] = ()
    clip: tuple[float, ...] = ()
    latents: tuple[float, ...] = ()
    pixels: tuple[float, ...] = ()
    unsound: str | None = None
    motion: tuple[float, ...] | UnsetType = UNSET


class Noise(Data, frozen=True, kw_only=True):
    """The noise floor of a cell: what each variant did to the scores of its first prompts."""

    variants: tuple[NoiseVariant, ...]

    def of_mean(self, score: str, prompts: int) -> float:
        """How far a mean over so many prompts may move.

        The larger of what a variant moved all prompts by alike, and of what is left of their scatter in such a mean.
        """
        moved = [getattr(variant, score) for variant in self.variants if getattr(variant, score)]
        return max((max(abs(fmean(v)), sqrt(fmean(x * x for x in v) / prompts)) for v in moved), default=0.0)

    def of_prompt(self, score: str) -> float:
        """How far the score of one prompt was moved at most."""
        return max((abs(x) for variant in self.variants for x in getattr(variant, score) or ()), default=0.0)


class Trained(Data, frozen=True, kw_only=True):
    """What a quantization-aware training did, and at which highest learning rate.

    ``seconds``: wall time of all of it. ``first_loss`` and ``last_loss``: means over the first and last tenth of the
    steps, of squared errors of what the denoiser predicts, as parts of the mean square of what the teacher does;
    ``None``: not finite, as of a training that diverged.
    """

    steps: int
    prompts: int
    seed: int
    rate: float
    seconds: float
    first_loss: float | None
    last_loss: float | None

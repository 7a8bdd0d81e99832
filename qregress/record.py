"""What one run of one cell produced, and what was judged of it. Plain data; the only JSON codec of the package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import inf, sqrt
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from qregress.errors import SchemaError
from qregress.metrics.weights import WeightsId

#: 2 added what a baseline is made of: ``Record.asked``, ``noise``, ``images_sha256`` and ``Fingerprint.device_class``.
#: What videos added since (``frames``, ``motion``) is ``UNSET`` for images and then in no file, so that theirs stay the
#: same to the byte; such a field needs no version. So it is with ``blame`` of cells that did not fail.
SCHEMA = 2

Status = Literal["ran", "crashed", "not-run"]
Verdict = Literal["pass", "fail", "crashed", "new", "void", "waived", "not-run"]


T = TypeVar("T", bound="Data")


class Data(msgspec.Struct, frozen=True):
    """Base of everything that is stored or crosses a process: immutable."""


class Fingerprint(Data, frozen=True, kw_only=True):
    """Where a record was made: evidence, never part of a baseline's key."""

    python: str
    platform: str
    device: str
    device_name: str
    device_bytes: int
    threads: int
    packages: dict[str, str]
    device_class: str = ""


#: A workload's keys that overrule an argument of the pipeline's call -> that argument.
CALL_ARGUMENTS = {
    "height": "height",
    "width": "width",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
}


class Asked(Data, frozen=True, kw_only=True):
    """What was asked for: two records are comparable where this is equal and so is the device class.

    Names of settings and workloads are no part of it, nor is a value that is the default, so that a key that a later
    version adds changes nothing. Nor does it matter whether ``call`` or ``workload`` says an argument of the call. What
    a pipeline's own files say is part of ``source_sha256``, and so is what a factory passes to every call.
    ``initial_sha256``: of the initial noise, as random streams have changed between torch releases.
    """

    source_sha256: str
    call: dict[str, Any]
    setting: dict[str, Any]
    workload: dict[str, Any]
    initial_sha256: str
    reference_dtype: str = "float16"

    @property
    def key(self) -> str:
        """SHA-256 of it all, hex."""
        plain = self.effective
        # 3 and 3.0 are one number to a pipeline, and two texts.
        call = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in plain.call.items()}
        plain = msgspec.structs.replace(plain, call=call)
        return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()

    @property
    def effective(self) -> Asked:
        """With the workload's arguments of the call where the call's are."""
        given = {name: self.workload[key] for key, name in CALL_ARGUMENTS.items() if key in self.workload}
        rest = {key: value for key, value in self.workload.items() if key not in CALL_ARGUMENTS}
        return msgspec.structs.replace(self, call=self.call | given, workload=rest)


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


class Memory(Data, frozen=True, kw_only=True):
    """Bytes on the device, of the cell alone.

    ``storage_bytes``: parameters and buffers, tensor subclasses unwrapped. ``static_bytes``: that, and what loading,
    quantizing and running left allocated beside it (what published tables call memory). ``peak_bytes``: the most
    allocated while running. ``reserved_bytes``: the most that a caching allocator held; ``None`` where that was not
    measured alone. ``load_peak_bytes``: the most allocated while copying and quantizing; ``None`` for the reference,
    whose files are memory-mapped.
    """

    storage_bytes: int
    static_bytes: int
    peak_bytes: int
    reserved_bytes: int | None
    load_peak_bytes: int | None
    components: dict[str, int]


class Timing(Data, frozen=True, kw_only=True):
    """Wall seconds of whole pipeline calls. Entry ``i`` of both lists belongs to the same interleaved pair."""

    samples_s: tuple[float, ...]
    reference_s: tuple[float, ...] = ()


class ModuleCoverage(Data, frozen=True, kw_only=True):
    """One module with weights of its own.

    ``expected`` is the weight type that the setting asks for, ``None`` where it asks for none; ``found`` is the type
    that the weight has, ``None`` where it is a plain tensor; ``tensor`` is its class, which names the kernel; ``dtype``
    that of a plain weight, else the one it computes in; ``packing``: how scales lie (``axis 0``, ``group 128``).
    """

    name: str
    module: str
    expected: str | None
    found: str | None
    tensor: str
    dtype: str
    bytes: int
    packing: str = ""


class Coverage(Data, frozen=True, kw_only=True):
    """The manifest of one component.

    ``asked``: the weight type that the setting names for it. ``unmatched``: patterns that match no module of any
    component that the setting names, told of the first. ``kept``: modules whose unquantized weight is still in memory
    beside the quantized one, in ``kept_bytes``. ``idle``: quantized modules that no call of the pipeline has used.
    """

    modules: tuple[ModuleCoverage, ...]
    asked: str | None = None
    unmatched: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    kept_bytes: int = 0
    idle: tuple[str, ...] = ()


class LayerFidelity(Data, frozen=True, kw_only=True):
    """What a quantized layer's kernel returned, against a product in float32 (of float32 layers: float64).

    ``inputs``, ``outputs``: of the product (of a convolution, of its unfolded patches), over ``tokens``. ``error``:
    relative Frobenius norm; ``bound``: what roundings in ``dtype`` may make of it. ``where``: where the error is beyond
    what they may be, empty where it is not; ``excess``: how many times the bound it is there; ``kind``: its structure.
    ``loss``: the error of quantization itself, of the weight in relative Frobenius norm, which is judged by nobody.
    """

    name: str
    tensor: str
    inputs: int
    outputs: int
    dtype: str
    tokens: int
    error: float | None
    bound: float
    excess: float | None
    loss: float | None = None
    where: str = ""
    kind: str = ""


class Roundtrip(Data, frozen=True, kw_only=True):
    """What was quantized, saved and loaded again.

    ``disk_bytes``: of the files, also by component. ``equal``: whether images and latents are the same bits as before.
    ``latents``: relative L2 of the final latents of each prompt that was generated again, in ``dtype``. ``message``:
    why a library could not save or load it; then the rest is empty.
    """

    disk_bytes: int
    components: dict[str, int]
    equal: bool
    latents: tuple[float | None, ...]
    dtype: str
    message: str = ""


class Trained(Data, frozen=True, kw_only=True):
    """What a quantization-aware training did, and at which highest learning rate.

    ``seconds``: wall time of all of it. ``first_loss`` and ``last_loss``: means over the first and last tenth of the
    steps, of squared errors of what the denoiser predicts, as parts of the mean square of what the teacher does.
    """

    steps: int
    prompts: int
    seed: int
    rate: float
    seconds: float
    first_loss: float
    last_loss: float


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


class Restored(Data, frozen=True, kw_only=True):
    """A part of a quantized pipeline, and the mean distance that is left with it unquantized; ``None``: not finite."""

    name: str
    distance: float | None


class Blame(Data, frozen=True, kw_only=True):
    """Which part of a cell carries its loss: its distance to the reference with one part at a time unquantized.

    ``score``: LPIPS, or for random weights the relative L2 of the final latents; all distances are means of it over
    ``prompts``, places in the record's list. ``distance``: of the cell as it is; ``None``: not finite. Parts that leave
    least come first. ``component``: the one whose blocks were tried, ``None`` where no component's restoring helps;
    ``blocks``: of it, or of the first of ``runs`` of neighbouring blocks, which are tried first where blocks are many.
    """

    score: Literal["lpips", "latents"]
    prompts: tuple[int, ...]
    distance: float | None
    components: tuple[Restored, ...] = ()
    component: str | None = None
    runs: tuple[Restored, ...] = ()
    blocks: tuple[Restored, ...] = ()

    def share(self, part: Restored) -> float:
        """The part of the distance that is gone with it, at most 1; negative where restoring it makes things worse.

        Shares need not add up to 1: two errors that point the same way weigh more together than each alone.
        """
        if self.distance is None:
            return 0.0 if part.distance is None else 1.0
        if part.distance is None:
            return -inf
        return 1 - part.distance / self.distance if self.distance > 0 else 0.0


class Record(Data, frozen=True, kw_only=True):
    """All that one run of one cell produced. Images and latents lie beside it as files.

    ``latents_sha256``: of the final latents' bytes; ``images_sha256``: of the images' pixels, all in one. ``frames``:
    how many of ``images`` belong to each prompt, one after the other; ``UNSET``: one. ``fidelity``: of each quantized
    layer, by component. ``beside``: scores against the FP16 reference, where ``scores`` are against the unquantized
    pipeline in the setting's own dtype. ``calibrated``: from how many prompts, the workload's first with their own
    seeds, scales of activations were taken. ``trained``: what training did to denoisers. ``UNSET``: not asked for.
    """

    schema: int = SCHEMA
    id: str
    pipeline: str
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
    coverage: dict[str, Coverage] = {}
    scores: Scores | None = None
    fingerprint: Fingerprint | None = None
    asked: Asked | None = None
    noise: Noise | None = None
    seconds: float = 0.0
    frames: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET
    fidelity: dict[str, tuple[LayerFidelity, ...]] | UnsetType = UNSET
    beside: Scores | UnsetType = UNSET
    roundtrip: Roundtrip | UnsetType = UNSET
    calibrated: int | UnsetType = UNSET
    trained: dict[str, Trained] | UnsetType = UNSET
    blame: Blame | UnsetType = UNSET


class Check(Data, frozen=True, kw_only=True):
    """One comparison of one number with one limit.

    ``better``: so far below what was accepted that noise does not explain it. ``stale``: it passes, and fails only for
    the waiver that says it would.
    """

    name: str
    verdict: Verdict
    value: float | None = None
    worst: float | None = None
    limit: float | None = None
    worst_limit: float | None = None
    basis: str = ""
    why: str = ""
    better: bool = False
    stale: bool = False


class LatencySummary(Data, frozen=True, kw_only=True):
    """Seconds, and the ratio of low quantiles to the reference's with its interval."""

    median_s: float
    samples_s: tuple[float, ...]
    reference_s: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


class CoverageSummary(Data, frozen=True, kw_only=True):
    """How many of the eligible modules are quantized, in all and per component."""

    quantized: int
    eligible: int
    components: dict[str, dict[str, int | dict[str, int]]]


class CellResult(Data, frozen=True, kw_only=True):
    """A judged cell, as run.json holds it.

    ``images`` and ``sheet`` are paths inside the run's folder. ``accepted``: this run makes it a baseline: a kind
    of ``qregress.store.accept``.
    """

    id: str
    pipeline: str
    setting: str
    workload: str
    status: Status
    verdict: Verdict
    message: str | None = None
    log: str | None = None
    checks: tuple[Check, ...] = ()
    memory: Memory | None = None
    memory_ratio: float | None = None
    latency: LatencySummary | None = None
    coverage: CoverageSummary | None = None
    scores: dict[str, float | None] = {}
    weights: tuple[WeightsId, ...] = ()
    notes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    sheet: str | None = None
    accepted: str | None = None
    seconds: float = 0.0


class Run(Data, frozen=True, kw_only=True):
    """All judged cells of one run: ``run.json``. ``selection``: the name of the cells that it was to run."""

    schema: int = SCHEMA
    fingerprint: Fingerprint | None = None
    started: str
    finished: str | None = None
    complete: bool = False
    commit: str | None = None
    selection: str = "all"
    not_run: dict[str, str] = {}
    cells: tuple[CellResult, ...] = ()


def encode(value: Data) -> bytes:
    """To indented JSON. NaN and infinity become ``null``, as JSON has neither."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """From JSON. Raises ``msgspec.ValidationError`` naming the field, ``SchemaError`` for another version's file."""
    if "schema" not in kind.__struct_fields__:
        return msgspec.json.decode(data, type=kind)
    raw = msgspec.json.decode(data)
    found = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise SchemaError(f"no schema version of qregress in it (found {found!r})")
    if found > SCHEMA:
        raise SchemaError(f"written by a newer qregress: schema {found}, this one reads up to {SCHEMA}; upgrade it")
    for version in range(found, SCHEMA):
        raw = MIGRATIONS[version](raw)
    return msgspec.convert(raw | {"schema": SCHEMA}, kind)


#: Schema version -> what makes the next one of it. What a file of version 1 lacks has defaults that say "not known":
#: such a record can be judged and compared, and accepting it is refused in words.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: dict}


def read(path: Path, kind: type[T]) -> T:
    """From a file; raises ``OSError`` and what ``decode`` raises."""
    return decode(path.read_bytes(), kind)

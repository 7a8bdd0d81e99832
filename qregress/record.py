"""What one run of one cell produced, and what was judged of it. Plain data; the only JSON codec of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from qregress.metrics.weights import WeightsId

SCHEMA = 1

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
    that the weight has, ``None`` where it is a plain tensor; ``tensor`` is its class, which names the kernel.
    """

    name: str
    module: str
    expected: str | None
    found: str | None
    tensor: str
    dtype: str
    bytes: int


class Coverage(Data, frozen=True, kw_only=True):
    """The manifest of one component.

    ``asked``: the weight type that the setting names for it. ``unmatched``: patterns that match no module of any
    component that the setting names, told of the first.
    """

    modules: tuple[ModuleCoverage, ...]
    asked: str | None = None
    unmatched: tuple[str, ...] = ()


class Problem(Data, frozen=True, kw_only=True):
    """What the sanity check saw: which prompt, what kind, in words."""

    prompt: int
    kind: str
    detail: str


class Scores(Data, frozen=True, kw_only=True):
    """Numbers of the images, one entry per prompt, against the reference image of the same prompt.

    ``lpips``; ``clip`` and ``clip_reference`` (100 x cosine); ``psnr_db`` (``None``: identical); ``ssim``;
    ``latents`` (relative L2 of the final latents); ``trajectory`` (the same per step, mean over prompts); ``None`` in
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


class Record(Data, frozen=True, kw_only=True):
    """All that one run of one cell produced. Images and latents lie beside it as files."""

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
    repeatable: bool | None = None
    reference_repeatable: bool | None = None
    memory: Memory | None = None
    timing: Timing | None = None
    coverage: dict[str, Coverage] = {}
    scores: Scores | None = None
    fingerprint: Fingerprint | None = None
    seconds: float = 0.0


class Check(Data, frozen=True, kw_only=True):
    """One comparison of one number with one limit."""

    name: str
    verdict: Verdict
    value: float | None = None
    worst: float | None = None
    limit: float | None = None
    worst_limit: float | None = None
    basis: str = ""
    why: str = ""


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
    """A judged cell, as run.json holds it; ``images`` and ``sheet`` are paths inside the run's folder."""

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
    seconds: float = 0.0


class Run(Data, frozen=True, kw_only=True):
    """All judged cells of one run: ``run.json``."""

    schema: int = SCHEMA
    fingerprint: Fingerprint | None = None
    started: str
    finished: str | None = None
    complete: bool = False
    not_run: dict[str, str] = {}
    cells: tuple[CellResult, ...] = ()


def encode(value: Data) -> bytes:
    """To indented JSON. NaN and infinity become ``null``, as JSON has neither."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """From JSON; raises ``msgspec.ValidationError`` naming the field."""
    return msgspec.json.decode(data, type=kind)


def read(path: Path, kind: type[T]) -> T:
    """From a file; raises ``OSError`` or ``msgspec.ValidationError``."""
    return decode(path.read_bytes(), kind)

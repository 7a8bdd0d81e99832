"""What was judged: checks, cells, and all of a run as ``run.json`` holds it."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from qregress.metrics.weights import WeightsId
from qregress.record.asked import Fingerprint
from qregress.record.base import SCHEMA, Data, Status, Verdict
from qregress.record.measured import Memory, Stages


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
    """Seconds, and the ratio of low quantiles to the reference's with its interval.

    ``busy_s``: the least that a CUDA device was busy in text encoding and ``busy_steps`` steps (unset: in a call),
    ``busy_ratio`` that to the reference's; ``host_bound``: the share of that in which it waits for its host.
    """

    median_s: float
    samples_s: tuple[float, ...]
    reference_s: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    busy_s: float | UnsetType = UNSET
    busy_steps: int | UnsetType = UNSET
    busy_ratio: float | UnsetType = UNSET
    host_bound: float | UnsetType = UNSET
    stages: Stages | UnsetType = UNSET


class CoverageSummary(Data, frozen=True, kw_only=True):
    """How many of the eligible modules are quantized, in all and per component."""

    quantized: int
    eligible: int
    components: dict[str, dict[str, int | dict[str, int]]]


class CellResult(Data, frozen=True, kw_only=True):
    """A judged cell, as run.json holds it.

    ``images`` and ``sheet`` are paths inside the run's folder. ``accepted``: this run makes it a baseline: a kind
    of ``qregress.store.accept``. ``source``: as in ``Record``.
    """

    id: str
    pipeline: str
    source: str | UnsetType = UNSET
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
    scores: dict[str, float | None] = field(default_factory=dict)
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
    not_run: dict[str, str] = field(default_factory=dict)
    cells: tuple[CellResult, ...] = ()

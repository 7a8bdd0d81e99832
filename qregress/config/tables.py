"""The tables of a qregress.toml as they are written, before anything is checked but names and types."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from qregress.matrix import Training


class PipelineTable(msgspec.Struct, forbid_unknown_fields=True):
    """``[pipelines.NAME]``."""

    source: str
    devices: list[str] | None = None
    call: dict[str, Any] = {}


class SettingTable(msgspec.Struct, forbid_unknown_fields=True):
    """``[settings.NAME]``."""

    weights: dict[str, Any]
    activations: dict[str, Any] = {}
    calibration: int = 4
    include: list[str] = []
    exclude: list[str] = []
    dtype: str = "float16"
    reference: str = "fp16"
    fuse_qkv: bool = False
    offload: str = "none"
    compile: bool = False
    roundtrip: bool = False
    qat: Training | None = None
    backend: str = "quanto"
    pipelines: list[str] = []


class WorkloadTable(msgspec.Struct, forbid_unknown_fields=True):
    """``[workloads.NAME]``."""

    prompts: str | list[str] = "builtin"
    count: int | None = None
    seed: int = 0
    batch_size: int = 1
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None


class WaiverTable(msgspec.Struct, forbid_unknown_fields=True):
    """``[[waivers]]``."""

    cell: str
    check: str
    reason: str
    issue: str
    expires: dt.date


class BaselinesTable(msgspec.Struct, forbid_unknown_fields=True):
    """``[baselines]``."""

    path: str | None = None
    store: str = "images"


class RunTable(msgspec.Struct, forbid_unknown_fields=True):
    """``[run]``."""

    deadline: str = "15 min"
    latency_pairs: int = 6
    latency_time: str = "20 s"
    select: str | None = None
    blame: bool = True

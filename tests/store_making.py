"""Finished runs and stores to test with, as large as asked for. No torch."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from qregress.judge.verdict import judge
from qregress.matrix import REFERENCE
from qregress.metrics.weights import WeightsId
from qregress.record import (
    Asked,
    Coverage,
    Fingerprint,
    ModuleCoverage,
    Noise,
    NoiseVariant,
    Record,
    Run,
    Scores,
    Timing,
)
from qregress.store.accept import Reason
from qregress.store.finished import FinishedRun
from qregress.store.run import RunFolder
from tests.making import make_memory, write_folder

CLASS = "cpu-x86_64-avx512"
REASON = Reason(by="Ada <ada@example.org>", why="first")


@cache
def png(seed: int, size: int = 16) -> bytes:
    """A PNG of soft noise, another for every seed."""
    from PIL import Image

    small = random.Random(seed).randbytes(8 * 8 * 3)  # noqa: S311 - pictures, not secrets
    out = io.BytesIO()
    Image.frombytes("RGB", (8, 8), small).resize((size, size)).save(out, "PNG")
    return out.getvalue()


def make_fingerprint(**fields: Any) -> Fingerprint:
    """Of a machine with a CPU."""
    given: dict[str, Any] = {
        "python": "3.11.7",
        "platform": "Linux",
        "device": "cpu",
        "device_name": "a processor",
        "device_bytes": 2**34,
        "threads": 2,
        "packages": {"torch": "2.14"},
        "device_class": CLASS,
    }
    return Fingerprint(**(given | fields))


def make_asked(setting: str = "s00", **fields: Any) -> Asked:
    """What a cell of a setting asks for."""
    given: dict[str, Any] = {
        "source_sha256": "5" * 64,
        "call": {},
        "setting": {} if setting == REFERENCE else {"weights": {"transformer": "int8"}, "exclude": [setting]},
        "workload": {"prompts": ["a red circle"], "steps": 4},
        "initial_sha256": "1" * 64,
    }
    return Asked(**(given | fields))


def make_noise(lpips: float = 0.001) -> Noise:
    """What one variant did to two prompts."""
    return Noise(variants=(NoiseVariant(name="again", lpips=(lpips, -lpips), pixels=(0.1, 0.1)),))


def finished_record(cell_id: str, *, step: int = 0, prompts: int = 2, **fields: Any) -> Record:
    """A record as a run leaves it, whose every figure and image depends on ``step``."""
    pipeline, setting, workload = cell_id.split("/")
    digest = hashlib.sha256(f"{cell_id} {step}".encode()).hexdigest()
    rise = step * 1e-3
    is_reference = setting == REFERENCE
    noise = random.Random(f"{cell_id} {step}")  # noqa: S311 - seconds, not secrets

    def seconds(least: float) -> tuple[float, ...]:
        return tuple(least + noise.expovariate(200) for _ in range(8))

    module = ModuleCoverage(
        name="proj", module="Linear", expected="int8", found="int8", tensor="QBytes", dtype="float16", bytes=64
    )
    given: dict[str, Any] = {
        "status": "ran",
        "prompts": tuple(f"prompt {index}" for index in range(prompts)),
        "images": tuple(f"images/{index:02d}.png" for index in range(prompts)),
        "latents_sha256": digest,
        "images_sha256": digest[::-1],
        "repeatable": True,
        "memory": make_memory(2**20 + step * 2**18),
        "timing": Timing(samples_s=seconds(1.0 + rise), reference_s=() if is_reference else seconds(0.8)),
        "coverage": {} if is_reference else {"transformer": Coverage(modules=(module,), asked="int8")},
        "scores": Scores(
            lpips=() if is_reference else tuple(0.01 + rise + index / 1e4 for index in range(prompts)),
            clip=(30.0 - rise,) * prompts,
            clip_reference=() if is_reference else (30.0,) * prompts,
            latents=() if is_reference else (0.05 + rise,) * prompts,
            weights=(WeightsId("st-alex", "a" * 64), WeightsId("open_clip/pocket", "c" * 64)),
        ),
        "fingerprint": make_fingerprint(),
        "asked": make_asked(setting),
        "noise": None if is_reference else make_noise(),
        "seconds": 1.0 + step,
    }
    return Record(id=cell_id, pipeline=pipeline, setting=setting, workload=workload, **(given | fields))


def write_run(
    root: Path, records: Iterable[Record], *, step: int = 0, size: int = 16, started: str = "2026-01-01T00:00:00+00:00"
) -> Path:
    """The folder of a finished run, with the images that its records name."""
    folder = RunFolder(root)
    folder.start(f"run {step}")
    results = []
    for number, record in enumerate(records):
        folder.write_record(record)
        for index, name in enumerate(record.images):
            path = folder.cell(record.id) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(step * 1000 + number * 20 + index, size))
        result = judge(record, None, {})
        folder.write_result(result)
        results.append(result)
    folder.write_run(
        Run(
            fingerprint=make_fingerprint(),
            started=started,
            finished=started,
            complete=True,
            commit="c" * 40,
            cells=tuple(results),
        )
    )
    return root


def matrix_ids(settings: int, workloads: int = 1) -> list[str]:
    """The ids of ``write_matrix``'s cells: of each workload the reference, then the settings."""
    names = [REFERENCE, *(f"s{number:02d}" for number in range(settings))]
    return [f"pixart/{name}/bs{number}" for number in range(1, workloads + 1) for name in names]


def matrix_config(settings: int, workloads: int = 1, *, more: str = "") -> str:
    """A configuration with one pipeline."""
    lines = ["[pipelines.pixart]", 'source = "path:pipeline"', 'devices = ["cpu"]']
    for number in range(settings):
        lines += [f"[settings.s{number:02d}]", 'weights = { transformer = "int8" }']
    for number in range(1, workloads + 1):
        lines += [f"[workloads.bs{number}]", 'prompts = ["a red circle"]']
    return "\n".join([*lines, more, ""])


def write_matrix(path: Path, settings: int, workloads: int = 1, *, more: str = "") -> Path:
    """A project with that configuration; returns the configuration's path."""
    if not (path / "pipeline").exists():
        write_folder(path / "pipeline")
    (path / "qregress.toml").write_text(matrix_config(settings, workloads, more=more))
    return path / "qregress.toml"


def write_matrix_run(
    root: Path, settings: int, workloads: int = 1, *, step: int = 0, prompts: int = 2, size: int = 16, **fields: Any
) -> Path:
    """The run of all cells of ``write_matrix``; every file of another step's run differs."""
    records = [finished_record(cell, step=step, prompts=prompts, **fields) for cell in matrix_ids(settings, workloads)]
    return write_run(root, records, step=step, size=size)


def rewrite(run: Path, cell: str, **fields: Any) -> Record:
    """Change a record of a run."""
    folder = RunFolder(run)
    record = folder.record(cell)
    assert record is not None
    record = msgspec.structs.replace(record, **fields)
    folder.write_record(record)
    return record


def files(root: Path) -> dict[str, bytes]:
    """All files of a folder: path -> content."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def folders(root: Path) -> set[str]:
    """All folders of a folder."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()}


def cells_of(run: Path) -> list[str]:
    """The ids of a run's cells."""
    with FinishedRun(run) as finished:
        return [result.id for result in finished.run.cells]


def pack(run: Path, target: Path, *, top: str = "") -> Path:
    """A run as CI keeps it: a zip archive, its files inside ``top``."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files(run).items()):
            archive.writestr(f"{top}{name}", data)
    return target


def write_json(path: Path, value: Any) -> None:
    """Plain JSON of plain data."""
    path.write_bytes(msgspec.json.encode(value))

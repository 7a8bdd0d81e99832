"""Configurations, pipeline folders and records to test with. No torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec

from qregress.matrix import Cell, Pipeline, Setting, Workload
from qregress.record import (
    Asked,
    Check,
    Fingerprint,
    LayerFidelity,
    Memory,
    ModuleCoverage,
    Noise,
    NoiseVariant,
    Record,
    Scores,
    Timing,
    Verdict,
)

CONFIG = """
[pipelines.pixart]
source = "path:pipeline"
devices = ["cpu", "cuda"]
[settings.int8]
weights = { transformer = "int8" }
[settings."int8+te"]
weights = { transformer = "int8", text_encoder = "int8" }
[workloads.bs1]
prompts = ["a small red circle", "a large blue square"]
[budgets]
lpips = 0.05
[baselines]
store = "none"
"""

REFERENCE, INT8, INT8_TE = "pixart/reference/bs1", "pixart/int8/bs1", "pixart/int8+te/bs1"


def write_safetensors(path: Path, size: int = 16) -> None:
    """A whole safetensors file with one tensor of ``size`` bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def write_folder(path: Path) -> Path:
    """A Diffusers folder whose files are whole as far as that can be seen without loading them."""
    entries: dict[str, Any] = {"_class_name": "PixArtSigmaPipeline", "_diffusers_version": "0.37.1"}
    models = {"transformer": "PixArtTransformer2DModel", "text_encoder": "T5EncoderModel", "vae": "AutoencoderKL"}
    for name, kind in models.items():
        entries[name] = ["transformers" if name == "text_encoder" else "diffusers", kind]
        (path / name).mkdir(parents=True)
        (path / name / "config.json").write_text("{}")
        write_safetensors(path / name / "model.safetensors")
    for name in ("scheduler", "tokenizer"):
        entries[name] = ["diffusers", "Thing"]
        (path / name).mkdir()
        (path / name / f"{name}_config.json").write_text("{}")
    (path / "model_index.json").write_text(json.dumps(entries))
    return path


def write_project(path: Path, config: str = CONFIG) -> Path:
    """A folder with a qregress.toml and the pipeline that it names; returns the configuration's path."""
    write_folder(path / "pipeline")
    (path / "qregress.toml").write_text(config)
    return path / "qregress.toml"


def make_cell(pipeline: str = "pixart", setting: str = "int8", workload: str = "bs1") -> Cell:
    """A cell with one prompt."""
    return Cell(
        pipeline=Pipeline(name=pipeline, source="path:pipeline", devices=("cpu",)),
        setting=Setting(name=setting, weights={"transformer": "int8"}),
        workload=Workload(name=workload, prompts=("a small red circle",)),
    )


def make_record(cell_id: str = INT8, **fields: Any) -> Record:
    """A record that ran; ``fields`` replace what it has."""
    pipeline, setting, workload = cell_id.split("/")
    given = {"status": "ran", "prompts": ("a small red circle", "a large blue square")} | fields
    return Record(id=cell_id, pipeline=pipeline, setting=setting, workload=workload, **given)


def make_asked(setting: dict[str, Any]) -> Asked:
    """What was asked for, as far as the setting says it."""
    return Asked(source_sha256="0" * 64, call={}, setting=setting, workload={}, initial_sha256="1" * 64)


def make_module(name: str, expected: str | None = "int8", found: str | None = "int8") -> ModuleCoverage:
    """One module with weights."""
    return ModuleCoverage(
        name=name, module="Linear", expected=expected, found=found, tensor="Q", dtype="float16", bytes=8
    )


def make_memory(static: int, peak: int | None = None) -> Memory:
    """Figures of a cell whose other figures do not matter."""
    return Memory(
        storage_bytes=static,
        static_bytes=static,
        peak_bytes=peak if peak is not None else static,
        reserved_bytes=None,
        load_peak_bytes=static,
        components={"transformer": static},
    )


def make_layer(name: str = "block.to_q", **fields: Any) -> LayerFidelity:
    """A layer whose kernel is right."""
    given = {
        "tensor": "WeightQBytesTensor",
        "inputs": 128,
        "outputs": 256,
        "dtype": "float16",
        "tokens": 64,
        "error": 3e-4,
        "bound": 6e-4,
        "excess": 0.5,
    }
    return msgspec.convert(given | {"name": name} | fields, LayerFidelity)


def make_scores(**fields: Any) -> Scores:
    """Scores of two images without problems."""
    return Scores(**({"lpips": (0.01, 0.02)} | fields))


def make_timing(seconds: float, reference: float, pairs: int = 8, **fields: Any) -> Timing:
    """Interleaved pairs without noise."""
    return Timing(samples_s=(seconds,) * pairs, reference_s=(reference,) * pairs, **fields)


def make_check(verdict: Verdict, name: str = "quality.lpips", why: str = "because") -> Check:
    """A check with a verdict."""
    return Check(name=name, verdict=verdict, value=0.1, limit=0.05, basis="budget", why=why)


def make_fingerprint(
    device_class: str = "cpu-test", name: str = "a CPU", threads: int = 2, **fields: Any
) -> Fingerprint:
    """Where a record was made, as far as a check looks at it."""
    return Fingerprint(
        python="3",
        platform="test",
        device=device_class.partition("-")[0],
        device_name=name,
        device_bytes=0,
        threads=threads,
        packages={},
        device_class=device_class,
        **fields,
    )


def make_acceptable(cell_id: str = INT8, **fields: Any) -> Record:
    """A record with all that a baseline needs; ``fields`` replace what it has."""
    asked = Asked(source_sha256="2" * 64, call={}, setting={}, workload={}, initial_sha256="3" * 64)
    given = {
        "fingerprint": make_fingerprint(),
        "asked": asked,
        "latents_sha256": "0" * 64,
        "images_sha256": "1" * 64,
    }
    return make_record(cell_id, **(given | fields))


def make_noise(*moved: float, score: str = "lpips") -> Noise:
    """One variant that moved a score of each prompt by so much."""
    return Noise(variants=(msgspec.convert({"name": "again", score: moved}, NoiseVariant),))

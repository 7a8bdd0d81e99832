"""Where cells of one pipeline are run: it keeps the weights and the references between them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress import pipelines
from qregress.matrix import REFERENCE, Cell, Pipeline, Setting, Workload
from qregress.pipelines.assemble import initial_latents
from qregress.pipelines.folder import Folder
from qregress.produce import files, scoring
from qregress.produce.determinism import settle
from qregress.produce.fingerprint import fingerprint
from qregress.produce.generate import Generated, call_arguments, generate, join
from qregress.produce.memory import Window, stored, watch
from qregress.produce.protocol import Event, Options, Progress, Say
from qregress.produce.timing import interleave, timed
from qregress.quantize import load_backend
from qregress.quantize.coverage import Plan, manifest, plan
from qregress.record import Coverage, Memory, Record, Timing
from qregress.store.run import RunFolder

Emit = Callable[[Event], None]


class Bench:
    """Runs cells of one pipeline on one device and writes their records."""

    def __init__(self, pipeline: Pipeline, options: Options, emit: Emit) -> None:
        settle()
        self._folder: Folder = pipelines.check(pipeline.source)
        self._source = pipeline.source
        self._options = options
        self._emit = emit
        self._out = RunFolder(Path(options.out))
        self._pristine: dict[str, DiffusionPipeline] = {}
        self._references: dict[str, tuple[Generated, torch.Tensor]] = {}

    def run(self, cell: Cell, resolve: tuple[float, ...]) -> None:
        """Run one cell, its reference first where this run has none yet, and keep their records."""
        reference = Cell(pipeline=cell.pipeline, setting=Setting(name=REFERENCE), workload=cell.workload)
        if self._out.record(reference.id) is None:
            self._out.write_record(self._run_reference(reference))
        if not cell.setting.is_reference:
            self._out.write_record(self._run_cell(cell, resolve))

    def _load(self, dtype: str) -> DiffusionPipeline:
        """The unquantized pipeline in one compute dtype; never modified."""
        if dtype not in self._pristine:
            self._pristine[dtype] = pipelines.load(self._source, dtype, self._options.device)
        return self._pristine[dtype]

    def _run_reference(self, cell: Cell) -> Record:
        start = time.perf_counter()
        pipeline = self._load(cell.setting.dtype)
        workload = cell.workload
        initial = self._initial(pipeline, workload)
        batches = workload.batches()
        first, window = self._watch(cell, pipeline, batches[0], initial)
        parts: list[Generated] = []
        samples = []
        for index, batch in enumerate(batches):
            samples.append(timed(partial(self._keep, parts, pipeline, workload, batch, initial), self._options.device))
            self._emit(Progress(cell.id, "images", index + 1, len(batches)))
        made = join(parts)
        self._references[workload.name] = made, initial
        names, sha256 = files.save_generated(self._out.cell(cell.id), made, initial)
        total, each = stored(modules(pipeline))
        trained = self._folder.trained
        return self._record(
            cell,
            start,
            images=names,
            latents_sha256=sha256,
            repeatable=first.equals(parts[0]),
            memory=_memory(total, each, window, load_peak=total),
            timing=Timing(samples_s=tuple(samples)),
            scores=scoring.score_reference(made, workload.prompts, clip=self._options.clip, trained=trained),
        )

    def _run_cell(self, cell: Cell, resolve: tuple[float, ...]) -> Record:
        start = time.perf_counter()
        setting, workload, device = cell.setting, cell.workload, self._options.device
        missing = load_backend(setting.backend).prepare(
            setting.weights.values(), device, lambda text: self._emit(Say(text))
        )
        if missing is not None:
            return self._record(cell, start, status="not-run", message=missing)
        reference, initial = self._reference(cell)
        self._emit(Progress(cell.id, "quantize", 0, 1))
        pristine = self._load(setting.dtype)
        (pipeline, coverage), loading = watch(lambda: quantized(pristine, setting), device)
        first, window = self._watch(cell, pipeline, workload.batches()[0], initial)
        made, timing, repeatable = self._interleave(cell, pipeline, initial, reference, resolve)
        names, sha256 = files.save_generated(self._out.cell(cell.id), made)
        total, each = stored(modules(pipeline))
        untouched, _ = stored({k: v for k, v in modules(pipeline).items() if k not in setting.weights})
        self._emit(Progress(cell.id, "score", 0, 1))
        return self._record(
            cell,
            start,
            images=names,
            latents_sha256=sha256,
            repeatable=repeatable and first.equals(_rows(made, workload.batches()[0])),
            memory=_memory(total, each, window, load_peak=untouched + loading.peak),
            timing=timing,
            coverage=coverage,
            scores=scoring.score(
                made,
                reference,
                workload.prompts,
                lpips=self._options.lpips,
                clip=self._options.clip,
                trained=self._folder.trained,
            ),
        )

    def _interleave(
        self,
        cell: Cell,
        pipeline: DiffusionPipeline,
        initial: torch.Tensor,
        reference: Generated,
        resolve: tuple[float, ...],
    ) -> tuple[Generated, Timing, bool]:
        """The latency pass, whose images are the cell's images; every repeated call must give the same bits."""
        workload = cell.workload
        other = self._load("float16")
        seen: dict[int, Generated] = {}
        same = True

        def run_cell(batch: range) -> None:
            nonlocal same
            made = self._call(pipeline, workload, batch, initial)
            same = same and seen.setdefault(batch.start, made).equals(made)

        def run_reference(batch: range) -> None:
            nonlocal same
            same = self._call(other, workload, batch, initial).equals(_rows(reference, batch)) and same

        timing = interleave(
            run_cell,
            run_reference,
            workload.batches(),
            device=self._options.device,
            pairs=self._options.pairs,
            time_s=self._options.time_s,
            resolve=resolve,
            on_pair=lambda done, total: self._emit(Progress(cell.id, "latency pairs", done, total)),
        )
        return join([seen[batch.start] for batch in workload.batches()]), timing, same

    def _call(self, pipeline: DiffusionPipeline, workload: Workload, batch: range, initial: torch.Tensor) -> Generated:
        return generate(pipeline, self._folder, workload, batch, initial)

    def _keep(self, parts: list[Generated], *call: Any) -> None:
        parts.append(self._call(*call))

    def _watch(
        self, cell: Cell, pipeline: DiffusionPipeline, batch: range, initial: torch.Tensor
    ) -> tuple[Generated, Window]:
        """The memory pass, one call under the profiler; also the warm-up of what is timed next."""
        steps = call_arguments(self._folder, cell.workload).get("num_inference_steps", 0)

        def on_step(done: int) -> None:
            self._emit(Progress(cell.id, "memory pass, step", done, max(done, steps)))

        return watch(
            lambda: generate(pipeline, self._folder, cell.workload, batch, initial, on_step), self._options.device
        )

    def _reference(self, cell: Cell) -> tuple[Generated, torch.Tensor]:
        """The reference's images, from memory or, after a worker died, from disk."""
        name = cell.workload.name
        if name not in self._references:
            record = self._out.record(cell.reference_id)
            images = record.images if record is not None else ()
            self._references[name] = files.load_generated(self._out.cell(cell.reference_id), images)
        return self._references[name]

    def _initial(self, pipeline: DiffusionPipeline, workload: Workload) -> torch.Tensor:
        call = self._folder.call
        height = workload.height or call.get("height") or pipeline.vae_scale_factor * _sample_size(pipeline)
        width = workload.width or call.get("width") or pipeline.vae_scale_factor * _sample_size(pipeline)
        name = self._folder.class_name
        seeds = range(workload.seed, workload.seed + len(workload.prompts))
        return torch.cat([initial_latents(pipeline, name, height, width, seed) for seed in seeds])

    def _record(self, cell: Cell, start: float, **fields: Any) -> Record:
        return Record(
            **{
                "id": cell.id,
                "pipeline": cell.pipeline.name,
                "setting": cell.setting.name,
                "workload": cell.workload.name,
                "status": "ran",
                "prompts": cell.workload.prompts,
                "fingerprint": fingerprint(self._options.device),
                "seconds": time.perf_counter() - start,
                **fields,
            }
        )


def modules(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """The components that have weights."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def quantized(pristine: DiffusionPipeline, setting: Setting) -> tuple[DiffusionPipeline, dict[str, Coverage]]:
    """A pipeline whose named components are quantized copies, and the manifest of what became of them.

    The copies own their memory, aligned, unlike weights that were memory-mapped from a file: int8 products on a CPU
    read beyond 16-byte alignment otherwise. Components that are not named are the pristine ones themselves, and are
    in the manifest too: they must not have changed.
    """
    backend = load_backend(setting.backend)
    parts = dict(pristine.components)
    plans: dict[str, Plan] = {}
    for name, module in modules(pristine).items():
        weights = setting.weights.get(name)
        plans[name] = plan(module, backend, weights, setting.exclude if weights is not None else ())
        if weights is not None:
            parts[name] = copy.deepcopy(module)
            backend.quantize(parts[name], weights, setting.exclude)
    parts["scheduler"] = copy.deepcopy(pristine.scheduler)
    pipeline = type(pristine)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    coverage = {name: manifest(module, backend, plans[name]) for name, module in modules(pipeline).items()}
    return pipeline, coverage


def _rows(made: Generated, batch: range) -> Generated:
    """The rows of some prompts."""
    rows = slice(batch.start, batch.stop)
    return Generated(made.images[rows], made.finite[rows], made.latents[rows], made.trajectory[rows])


def _memory(total: int, each: dict[str, int], window: Window, *, load_peak: int) -> Memory:
    """The cell alone: what its components store, and on top the most that one call allocated.

    The reference's weights may be on the device meanwhile; they are in neither number.
    """
    return Memory(
        storage_bytes=total,
        static_bytes=total,
        peak_bytes=total + window.peak,
        reserved_bytes=None,
        load_peak_bytes=load_peak,
        components=each,
    )


def _sample_size(pipeline: DiffusionPipeline) -> int:
    size: int = pipeline.transformer.config.sample_size
    return size

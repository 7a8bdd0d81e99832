"""Where cells of one pipeline are run: it keeps the weights and the references between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import DiffusionPipeline
from msgspec import UNSET, UnsetType

from qregress import pipelines
from qregress.errors import ProduceError
from qregress.matrix import DENOISER, FINAL, REFERENCE, Cell, Pipeline, Setting, Workload, canonical
from qregress.pipelines.assemble import check_apart, family_of, initial_latents, sample_size, video_length
from qregress.pipelines.digest import source_sha256
from qregress.pipelines.families import final_projection
from qregress.pipelines.folder import Folder
from qregress.produce import files, scoring
from qregress.produce.blame import blame
from qregress.produce.calibration import calibrate
from qregress.produce.determinism import settle
from qregress.produce.execution import copied, is_placed, place, unable
from qregress.produce.fingerprint import fingerprint
from qregress.produce.generate import Generated, OnStep, call_arguments, drawn_latents, generate, join
from qregress.produce.latency import latency_pass
from qregress.produce.memory import Window, account, watch
from qregress.produce.noise import measure
from qregress.produce.proof import Proof, prove
from qregress.produce.protocol import Event, Options, Progress, Say
from qregress.produce.roundtrip import roundtrip
from qregress.produce.timing import timed
from qregress.produce.training import train
from qregress.produce.variant import assemble, denoisers, modules, plans, quantized, specs
from qregress.quantize import load_backend, missing
from qregress.record import Asked, Record, Roundtrip, Scores, Timing, Trained
from qregress.store.run import RunFolder

Emit = Callable[[Event], None]


class Bench:
    """Runs cells of one pipeline on one device and writes their records."""

    def __init__(self, pipeline: Pipeline, options: Options, emit: Emit) -> None:
        settle()
        found = pipelines.find(pipeline)
        self._source = msgspec.structs.replace(found, call=found.call | pipeline.call)
        self._options = options
        self._emit = emit
        self._out = RunFolder(Path(options.out))
        self._pristine: dict[str, DiffusionPipeline] = {}
        self._references: dict[str, tuple[Generated, torch.Tensor]] = {}
        self._same_dtypes: dict[tuple[str, str], Generated] = {}
        self._last: tuple[str, DiffusionPipeline, Generated, Generated] | None = None
        self._source_sha256 = ""
        if found.trained:
            scoring.load(lpips=options.lpips, clip=options.clip)  # a name that is none shows before anything has run

    def run(self, cell: Cell, resolve: tuple[float, ...]) -> None:
        """Run one cell, its reference first where this run has none yet, and keep their records."""
        self._last = None  # a cell is measured alone
        reference = Cell(pipeline=cell.pipeline, setting=Setting(name=REFERENCE), workload=cell.workload)
        if self._out.record(reference.id) is None:
            self._out.write_record(self._run_reference(reference))
        if not cell.setting.is_reference:
            self._out.write_record(self._run_cell(self._fitted(cell), resolve))

    def measure_noise(self, cell: Cell) -> None:
        """Add the noise floor to the record of the cell that ran last, or of a reference, whichever process ran it.

        Raises ``ProduceError`` where its weights or images are not at hand any more.
        """
        record, pipeline, made, reference, initial = self._just_run(cell, "its noise can be measured")
        base = None if cell.setting.is_reference else reference
        noise = measure(
            lambda batch: generate(pipeline, self._source, cell.workload, batch, initial),
            record,
            made,
            base,
            device=self._options.device,
            clip=self._options.clip,
            lpips=self._options.lpips,
            batch_size=cell.workload.batch_size,
            on_variant=lambda done, total: self._emit(Progress(cell.id, "noise floor", done, total)),
        )
        self._out.write_record(msgspec.structs.replace(record, noise=noise))

    def find_blame(self, cell: Cell, prompts: tuple[int, ...]) -> None:
        """Add to the record of the cell that ran last which of its parts carries the loss of some prompts.

        Raises ``ProduceError`` where its weights or images are not at hand any more.
        """
        if cell.setting.offload != "none":
            raise ProduceError(f"{cell.id}: with offload, its components cannot be exchanged one by one")
        record, pipeline, made, reference, initial = self._just_run(cell, "its loss can be blamed on something")
        expected, trained = reference.rows(prompts), self._source.trained
        size = cell.workload.batch_size
        batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]

        def left(made: Generated) -> float:
            return scoring.distance(made, expected, lpips=self._options.lpips, trained=trained)

        def run(changed: DiffusionPipeline) -> float:
            return left(join([generate(changed, self._source, cell.workload, batch, initial) for batch in batches]))

        found = blame(
            pipeline,
            self._load(cell.setting.dtype),
            run,
            whole=left(made.rows(prompts)),
            score="lpips" if trained else "latents",
            prompts=prompts,
            on_step=lambda done, total: self._emit(Progress(cell.id, "blame", done, total)),
        )
        self._out.write_record(msgspec.structs.replace(record, blame=found))

    def _just_run(self, cell: Cell, what: str) -> tuple[Record, DiffusionPipeline, Generated, Generated, torch.Tensor]:
        """The cell that ran last, or a reference: record, pipeline, images, those it is held against, initial noise."""
        record = self._out.record(cell.id)
        known = self._references.get(cell.workload.name)
        last = self._last
        if cell.setting.is_reference and record is not None:
            known = self._reference(cell)
            last = cell.id, assemble(self._load(cell.setting.dtype), {}), known[0], known[0]
        if record is None or known is None or last is None or last[0] != cell.id:
            raise ProduceError(f"{cell.id}: {what} only in the process that has just run it")
        return record, *last[1:], known[1]

    def _fitted(self, cell: Cell) -> Cell:
        """With components in place of roles, where those are known only now that the pipeline is loaded."""
        setting = cell.setting
        if not setting.speaks_of_roles:
            return cell
        pipeline = self._load("float16")
        roles = family_of(pipeline)
        if roles.final is None:
            names = (name for name, _ in getattr(pipeline, roles.denoiser).named_modules())
            roles = msgspec.structs.replace(roles, final=final_projection(names))
        offered = cell.pipeline.factory.components if cell.pipeline.factory is not None else None
        if offered is not None:
            encoders = tuple(name for name in roles.text_encoders if name in offered)
            roles = msgspec.structs.replace(roles, text_encoders=encoders)
        lacks = [name for name in setting.weights if not roles.members(name)]
        if DENOISER in setting.weights and offered is not None and not {*roles.members(DENOISER)} <= {*offered}:
            lacks.append(DENOISER)
        if FINAL in {*setting.include, *setting.exclude} and roles.final is None:
            lacks.append(FINAL)
        if lacks:
            raise ProduceError(
                f"setting '{setting.name}' names '{lacks[0]}', and {cell.pipeline.name} "
                f"({type(pipeline).__name__}) is not known to offer any: name components and modules themselves"
            )
        return msgspec.structs.replace(cell, setting=setting.of(roles))

    def _load(self, dtype: str) -> DiffusionPipeline:
        """The unquantized pipeline in one compute dtype; never modified."""
        if dtype not in self._pristine:
            loaded = pipelines.load(self._source, dtype, self._options.device)
            for other in self._pristine.values():
                check_apart(loaded, other)
            self._pristine[dtype] = loaded
        return self._pristine[dtype]

    def _run_reference(self, cell: Cell) -> Record:
        start = time.perf_counter()
        pipeline = assemble(self._load(cell.setting.dtype), {})
        workload = cell.workload
        initial = self._initial(pipeline, workload)
        batches = workload.batches()
        first, window = self._watch(cell, pipeline, batches[0], initial)
        parts: list[Generated] = []

        def run(batch: range) -> None:
            parts.append(generate(pipeline, self._source, workload, batch, initial))

        samples = []
        for index, batch in enumerate(batches):
            samples.append(timed(partial(run, batch), self._options.device))
            self._emit(Progress(cell.id, "images", index + 1, len(batches)))
        made = join(parts)
        self._references[workload.name] = made, initial
        kept = files.save_generated(self._out.cell(cell.id), made, initial)
        trained = self._source.trained
        return self._record(
            cell,
            start,
            **kept,
            asked=self._asked(cell, initial),
            repeatable=first.equals(parts[0]),
            memory=account(modules(pipeline), window, self._options.device),
            timing=Timing(samples_s=tuple(samples[: len(workload.timed_batches())])),
            scores=scoring.score_reference(made, workload.prompts, clip=self._options.clip, trained=trained),
        )

    def _run_cell(self, cell: Cell, resolve: tuple[float, ...]) -> Record:
        start = time.perf_counter()
        setting, workload, options = cell.setting, cell.workload, self._options
        self._emit(Progress(cell.id, "prepare", 0, 1))
        lacks = self._lacks(setting)
        if lacks is not None:
            return self._record(cell, start, status="not-run", message=lacks)
        expected, initial = self._reference(cell)
        pristine, trained = self._trained(cell, self._load(setting.dtype))
        planned = plans(pristine, setting)
        self._emit(Progress(cell.id, "quantize", 0, 1))
        changed, loading = watch(lambda: quantized(pristine, setting), options.device)
        pipeline = assemble(pristine, changed | copied(pristine, setting))

        def run(pipeline: DiffusionPipeline, batch: range, on_step: OnStep | None = None) -> Generated:
            return generate(pipeline, self._source, workload, batch, initial, on_step)

        calibrated = calibrate(setting, workload, lambda batch: run(pipeline, batch))
        first_batch = workload.batches()[0]

        def proven() -> Proof:
            known = self._pristine.values()
            return prove(
                pipeline, pristine, setting, planned, known, lambda on_step: run(pipeline, first_batch, on_step)
            )

        proof: Proof | None = None
        if is_placed(setting):
            # Compiled or moved about, a pipeline's layers are no longer there to be looked at.
            proof = proven()
            place(pipeline, setting, options.device, lambda text: self._emit(Say(text)))
            run(pipeline, first_batch)
        reference = assemble(self._load("float16"), {})
        first, window = self._watch(cell, pipeline, first_batch, initial)
        passed = latency_pass(
            partial(run, pipeline),
            partial(run, reference),
            expected,
            workload,
            options,
            resolve,
            lambda done, total: self._emit(Progress(cell.id, "latency pairs", done, total)),
        )
        kept = files.save_generated(self._out.cell(cell.id), passed.made)
        memory = account(modules(pipeline), window, options.device, changed=changed, loading=loading)
        self._emit(Progress(cell.id, "coverage and kernels", 0, 1))
        proof = proof if proof is not None else proven()
        trip: Roundtrip | UnsetType = UNSET
        if setting.roundtrip:
            self._emit(Progress(cell.id, "save and load", 0, 1))
            made = passed.made.rows(first_batch)
            trip = roundtrip(pipeline, setting, made, lambda again: run(again, first_batch), self._out.cell(cell.id))
        gated = self._same_dtype(cell, initial) if setting.reference == "same-dtype" else expected
        self._last = cell.id, pipeline, passed.made, gated
        self._emit(Progress(cell.id, "score", 0, 1))
        return self._record(
            cell,
            start,
            **kept,
            asked=self._asked(cell, initial),
            repeatable=passed.repeatable and first.equals(passed.made.rows(first_batch)),
            reference_repeatable=passed.reference_repeatable,
            memory=memory,
            timing=passed.timing,
            coverage=proof.coverage,
            fidelity=proof.fidelity,
            roundtrip=trip,
            calibrated=calibrated or UNSET,
            trained=trained or UNSET,
            scores=self._score(cell, passed.made, gated),
            beside=self._score(cell, passed.made, expected) if gated is not expected else UNSET,
        )

    def _score(self, cell: Cell, made: Generated, reference: Generated) -> Scores:
        options = self._options
        return scoring.score(
            made,
            reference,
            cell.workload.prompts,
            lpips=options.lpips,
            clip=options.clip,
            trained=self._source.trained,
        )

    def _lacks(self, setting: Setting) -> str | None:
        """Why this machine cannot run a setting, in one line; what its backend compiles is built here."""
        lacks = missing(setting.backend) or unable(setting, self._options.device)
        if lacks is not None:
            return lacks
        backend = load_backend(setting.backend)
        kinds = setting.weights.values(), setting.activations.values()
        return backend.prepare(kinds[0], self._options.device, lambda text: self._emit(Say(text)), kinds[1])

    def _trained(self, cell: Cell, pristine: DiffusionPipeline) -> tuple[DiffusionPipeline, dict[str, Trained]]:
        """The unquantized pipeline with its denoisers trained for what they are about to be quantized to."""
        setting = cell.setting
        if setting.qat is None:
            return pristine, {}
        asked = specs(pristine, setting)
        made, told = {}, {}
        for name in denoisers(pristine):
            if name in asked:
                made[name], told[name] = train(
                    pristine,
                    self._source,
                    cell.workload,
                    name,
                    asked[name],
                    setting.qat,
                    lambda done, total: self._emit(Progress(cell.id, "training", done, total)),
                )
        return assemble(pristine, made), told

    def _same_dtype(self, cell: Cell, initial: torch.Tensor) -> Generated:
        """Images of the unquantized pipeline in the setting's own dtype, made once for a workload."""
        dtype, workload = cell.setting.dtype, cell.workload
        key = dtype, workload.name
        if key not in self._same_dtypes:
            pipeline = assemble(self._load(dtype), {})
            parts = []
            for done, batch in enumerate(workload.batches(), 1):
                parts.append(generate(pipeline, self._source, workload, batch, initial))
                self._emit(Progress(cell.id, f"reference in {dtype}", done, len(workload.batches())))
            self._same_dtypes[key] = join(parts)
        return self._same_dtypes[key]

    def _watch(
        self, cell: Cell, pipeline: DiffusionPipeline, batch: range, initial: torch.Tensor
    ) -> tuple[Generated, Window]:
        """The memory pass, one call under the allocator's watch; also the warm-up of what is timed next.

        What it returns lies on the CPU: on a CPU that is no memory of the pipeline's, and is taken off what was left.
        """
        steps = call_arguments(self._source, cell.workload).get("num_inference_steps", 0)
        device = self._options.device

        def on_step(done: int) -> None:
            self._emit(Progress(cell.id, "memory pass, step", done, max(done, steps)))

        made, window = watch(lambda: generate(pipeline, self._source, cell.workload, batch, initial, on_step), device)
        return made, window.without(made.nbytes, modules(pipeline), device)

    def _reference(self, cell: Cell) -> tuple[Generated, torch.Tensor]:
        """The reference's images, from memory or, after a worker died, from disk: then it must still be warmed up."""
        workload = cell.workload
        if workload.name not in self._references:
            record = self._out.record(cell.reference_id)
            images = record.images if record is not None else ()
            made, initial = files.load_generated(self._out.cell(cell.reference_id), images)
            generate(assemble(self._load("float16"), {}), self._source, workload, workload.batches()[0], initial)
            self._references[workload.name] = made, initial
        return self._references[workload.name]

    def _initial(self, pipeline: DiffusionPipeline, workload: Workload) -> torch.Tensor:
        roles = family_of(pipeline)
        if roles.inferred:
            drawn = [drawn_latents(pipeline, self._source, workload, n) for n in range(len(workload.prompts))]
            return torch.cat(drawn)
        given = call_arguments(self._source, workload)
        height, width = (given.get(side) or sample_size(pipeline, roles) for side in ("height", "width"))
        frames = video_length(pipeline, roles, given)
        seeds = range(workload.seed, workload.seed + len(workload.prompts))
        return torch.cat([initial_latents(pipeline, roles, height, width, seed, frames) for seed in seeds])

    def _asked(self, cell: Cell, initial: torch.Tensor) -> Asked:
        """The key of a baseline; a pipeline is digested once.

        What a factory passes to every call may be of any type: it is part of the digest, not of the readable key.
        """
        from_files = isinstance(self._source, Folder)
        if not self._source_sha256:
            call = {} if from_files else self._source.call
            made = self._source if isinstance(self._source, Folder) else self._load("float16")
            self._source_sha256 = source_sha256(made, call)
        return Asked(
            source_sha256=self._source_sha256,
            call=self._source.call if from_files else {},
            setting=canonical(cell.setting),
            workload=canonical(cell.workload),
            initial_sha256=files.digest(initial),
            reference_dtype=cell.setting.dtype if cell.setting.reference == "same-dtype" else "float16",
        )

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

"""Where cells of one pipeline are run: what is called for each, in which order, and what is kept of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import DiffusionPipeline
from msgspec import UNSET, UnsetType
from torch import nn

from qregress.errors import Unavailable
from qregress.matrix import REFERENCE, Cell, Pipeline, Setting, Workload
from qregress.produce import files, scoring
from qregress.produce.blame import blame
from qregress.produce.calibration import calibrate
from qregress.produce.determinism import settle
from qregress.produce.disturbance import disturbances
from qregress.produce.execution import copied, is_placed, place
from qregress.produce.fingerprint import fingerprint
from qregress.produce.generate import Generated, OnStep, call_arguments, join
from qregress.produce.latency import Calls, latency_pass
from qregress.produce.memory import Window, account, loaded, watch
from qregress.produce.noise import measure
from qregress.produce.profiling import device_busy
from qregress.produce.proof import Proof, prove
from qregress.produce.protocol import Event, Options, Progress, Say
from qregress.produce.residence import HostCopies
from qregress.produce.roundtrip import roundtrip
from qregress.produce.shortage import explained
from qregress.produce.timing import synchronize, timed
from qregress.produce.training import train
from qregress.produce.unquantized import Unquantized
from qregress.produce.variant import assemble, denoisers, modules, plans, quantized, specs
from qregress.quantize import load_backend, missing
from qregress.record import CALL_ARGUMENTS, Record, Roundtrip, Scores, Timing, Trained
from qregress.store.run import RunFolder

Emit = Callable[[Event], None]
_STEPS = CALL_ARGUMENTS["steps"]
#: Steps of a call that only warms up.
_WARM_UP = 2


class Bench:
    """Runs cells of one pipeline on one device and writes their records."""

    def __init__(self, pipeline: Pipeline, options: Options, emit: Emit) -> None:
        settle()
        if options.device.startswith("cuda"):
            # For what takes no device: pages that are locked, events.
            torch.cuda.set_device(torch.device(options.device).index or 0)
        self._options = options
        self._emit = emit
        self._out = RunFolder(Path(options.out))
        self._unquantized = Unquantized(pipeline, options.device, self._out)
        self._host = HostCopies(options.device, self._unquantized.spent)
        self._last: tuple[str, DiffusionPipeline, Generated, Generated] | None = None
        if self._unquantized.source.trained:
            scoring.load(lpips=options.lpips, clip=options.clip)  # a name that is none shows before anything has run

    def run(self, cell: Cell, resolve: tuple[float, ...]) -> None:
        """Run one cell, its reference first where this run has none yet, and keep their records."""
        self._last = None  # a cell is measured alone
        self._unquantized.make_room(cell.setting.dtype)
        self._host.forget_all_but(self._loaded_parts())
        gc.collect()  # hooks, calibrated activations and compiled modules are in cycles
        self._unquantized.spent.take()  # a noise floor's calls, say, which belong to no cell's measurement
        reference = Cell(pipeline=cell.pipeline, setting=Setting(name=REFERENCE), workload=cell.workload)
        with explained(cell.id, lambda: self._unquantized.loaded, self._options.device):
            if self._out.record(reference.id) is None:
                self._out.write_record(self._run_reference(reference))
            if not cell.setting.is_reference:
                self._out.write_record(self._run_cell(self._unquantized.fitted(cell), resolve))

    def measure_noise(self, cell: Cell) -> None:
        """Add the noise floor to the record of the cell that ran last, or of a reference, whichever process ran it.

        Raises ``Unavailable`` where its weights or images are not at hand any more.
        """
        record, pipeline, made, reference, initial = self._just_run(cell, "its noise can be measured")
        base = None if cell.setting.is_reference else reference
        noise = measure(
            lambda batch: self._unquantized.call(pipeline, cell.workload, batch, initial),
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

        Raises ``Unavailable`` where its weights or images are not at hand any more.
        """
        record, pipeline, made, reference, initial = self._just_run(cell, "its loss can be blamed on something")
        expected, trained = reference.rows(prompts), self._unquantized.source.trained
        size = cell.workload.batch_size
        batches = [prompts[start : start + size] for start in range(0, len(prompts), size)]

        def left(made: Generated) -> float:
            return scoring.distance(made, expected, lpips=self._options.lpips, trained=trained)

        def run(changed: DiffusionPipeline) -> float:
            return left(join([self._unquantized.call(changed, cell.workload, batch, initial) for batch in batches]))

        found = blame(
            pipeline,
            self._unquantized.load(cell.setting.dtype),
            run,
            components=self._unquantized.fitted(cell).setting.weights,
            whole=left(made.rows(prompts)),
            score="lpips" if trained else "latents",
            prompts=prompts,
            on_step=lambda done, total: self._emit(Progress(cell.id, "blame", done, total)),
        )
        self._out.write_record(msgspec.structs.replace(record, blame=found))

    def _just_run(self, cell: Cell, what: str) -> tuple[Record, DiffusionPipeline, Generated, Generated, torch.Tensor]:
        """The cell that ran last, or a reference: record, pipeline, images, those it is held against, initial noise."""
        record = self._out.record(cell.id)
        last = self._last
        if cell.setting.is_reference and record is not None:
            made, _ = self._unquantized.reference(cell)
            last = cell.id, self._unquantized.pipeline(cell.setting.dtype), made, made
        if record is None or last is None or last[0] != cell.id:
            raise Unavailable(f"{cell.id}: {what} only in the process that has just run it")
        _, initial = self._unquantized.reference(cell)
        return record, *last[1:], initial

    def _run_reference(self, cell: Cell) -> Record:
        start = time.perf_counter()
        pipeline = self._unquantized.pipeline(cell.setting.dtype)
        workload = cell.workload
        initial = self._unquantized.initial(pipeline, workload)
        batches = workload.batches()
        first, window = self._watch(cell, pipeline, batches[0], initial)
        calls = self._calls(pipeline, workload, initial)
        parts: list[Generated] = []

        def run(batch: range) -> None:
            if len(batch) == len(batches[0]):
                parts.append(calls(batch))
            else:  # the last one, smaller, is in neither seconds nor stages
                parts.append(self._unquantized.call(pipeline, workload, batch, initial))

        samples = []
        with ExitStack() as later, disturbances(self._options.device) as disturbed:
            for index, batch in enumerate(batches):
                samples.append(timed(partial(run, batch), self._options.device))
                self._emit(Progress(cell.id, "images", index + 1, len(batches)))
            made = join(parts)
            self._unquantized.keep_reference(workload, made, initial)
            # Beside profiled calls, of which the device's seconds are taken and not the host's.
            kept = later.enter_context(files.keeping(self._out.cell(cell.id), made, initial, self._unquantized.spent))
            busy = device_busy(calls.beginning(batches[0]), self._options.device, self._unquantized.spent)
        trained = self._unquantized.source.trained
        with self._unquantized.spent.on("scores"):
            scores = scoring.score_reference(made, workload.prompts, clip=self._options.clip, trained=trained)
        return self._record(
            cell,
            start,
            **kept.result(),
            asked=self._unquantized.asked(cell, initial),
            repeatable=first.equals(parts[0]),
            memory=account(modules(pipeline), window, self._options.device),
            timing=Timing(
                samples_s=tuple(samples[: len(workload.timed_batches())]),
                busy_s=busy.cell or UNSET,
                busy_steps=busy.steps,
                stages=calls.stages,
                disturbed=disturbed.told() or UNSET,
                unwatched=disturbed.unwatched() or UNSET,
            ),
            scores=scores,
        )

    def _run_cell(self, cell: Cell, resolve: tuple[float, ...]) -> Record:
        start = time.perf_counter()
        setting, workload, options = cell.setting, cell.workload, self._options
        self._emit(Progress(cell.id, "prepare", 0, 1))
        lacks = self._lacks(setting)
        if lacks is not None:
            return self._record(cell, start, status="not-run", message=lacks)
        expected, initial = self._unquantized.reference(cell)
        pristine, trained = self._trained(cell, self._unquantized.load(setting.dtype))
        planned = plans(pristine, setting)
        self._emit(Progress(cell.id, "quantize", 0, 1))
        # The memory pass moves aside what is replaced; nothing changes it until then.
        self._host.begin([part for name, part in modules(pristine).items() if name in setting.weights])
        changed, quantizing = watch(partial(self._quantize, pristine, setting), options.device)
        pipeline = assemble(pristine, changed | copied(pristine, setting))
        loading = loaded(modules(pipeline), changed, quantizing, options.device)

        def run(pipeline: DiffusionPipeline, batch: range, on_step: OnStep | None = None) -> Generated:
            return self._unquantized.call(pipeline, workload, batch, initial, on_step)

        calibrated = calibrate(setting, workload, lambda batch: run(pipeline, batch))
        first_batch = workload.batches()[0]

        def proven() -> Proof:
            known, comparing = self._unquantized.loaded, partial(self._unquantized.spent.on, "proof")
            with comparing():  # but for its call
                call = partial(run, pipeline, first_batch)
                return prove(pipeline, pristine, setting, planned, known, call, comparing)

        proof: Proof | None = None
        if is_placed(setting):
            # Compiled or moved about, a pipeline's layers are no longer there to be looked at.
            proof = proven()
            place(pipeline, setting, options.device, lambda text: self._emit(Say(text)))
            run(pipeline, first_batch)
        reference = self._unquantized.pipeline("float16")
        first, window = self._watch(cell, pipeline, first_batch, initial, modules(pristine).values())
        if options.device.startswith("cuda"):
            self._warm(reference, workload, initial)  # its weights were on the host meanwhile
        passed = latency_pass(
            self._calls(pipeline, workload, initial),
            self._calls(reference, workload, initial),
            expected,
            workload,
            options,
            resolve,
            lambda done, total: self._emit(Progress(cell.id, "latency pairs", done, total)),
            self._unquantized.spent,
        )
        with files.keeping(self._out.cell(cell.id), passed.made, None, self._unquantized.spent) as kept:
            memory = account(modules(pipeline), window, options.device, loading)
            self._emit(Progress(cell.id, "coverage and kernels", 0, 1))
            proof = proof if proof is not None else proven()
        trip: Roundtrip | UnsetType = UNSET
        if setting.roundtrip:
            self._emit(Progress(cell.id, "save and load", 0, 1))
            made = passed.made.rows(first_batch)
            folder = self._out.cell(cell.id)
            trip = roundtrip(pipeline, setting, planned, made, lambda again: run(again, first_batch), folder)
        gated = expected
        if setting.reference == "same-dtype":
            what = f"reference in {setting.dtype}"
            gated = self._unquantized.same_dtype(
                cell, initial, lambda done, total: self._emit(Progress(cell.id, what, done, total))
            )
        self._last = cell.id, pipeline, passed.made, gated
        self._emit(Progress(cell.id, "score", 0, 1))
        return self._record(
            cell,
            start,
            **kept.result(),
            asked=self._unquantized.asked(cell, initial),
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

    def _quantize(self, pristine: DiffusionPipeline, setting: Setting) -> dict[str, nn.Module]:
        """See ``variant.quantized``. Its seconds are not those of the watch over memory around it."""
        with self._unquantized.spent.on("quantize"):
            changed = quantized(pristine, setting)
            synchronize(self._options.device)
        return changed

    def _warm(self, pipeline: DiffusionPipeline, workload: Workload, initial: torch.Tensor) -> None:
        """One call to its end, so that memory for all of it is at hand, in few of the steps, which are all alike."""
        batch = workload.batches()[0]
        if _STEPS in signature(type(pipeline).__call__).parameters:
            asked = call_arguments(self._unquantized.source, workload).get(_STEPS, _WARM_UP)
            short = msgspec.structs.replace(workload, steps=min(asked, _WARM_UP))
            # Some schedulers cannot take so few, each with an error of its own: nobody has asked them to.
            with suppress(Exception):
                self._unquantized.call(pipeline, short, batch, initial)
                return
        self._unquantized.call(pipeline, workload, batch, initial)

    def _calls(self, pipeline: DiffusionPipeline, workload: Workload, initial: torch.Tensor) -> Calls:
        def call(batch: range, on_step: OnStep | None) -> Generated:
            return self._unquantized.call(pipeline, workload, batch, initial, on_step)

        return Calls(pipeline, call, self._options.device)

    def _score(self, cell: Cell, made: Generated, reference: Generated) -> Scores:
        options = self._options
        with self._unquantized.spent.on("scores"):
            return scoring.score(
                made,
                reference,
                cell.workload.prompts,
                lpips=options.lpips,
                clip=options.clip,
                trained=self._unquantized.source.trained,
            )

    def _lacks(self, setting: Setting) -> str | None:
        """Why this machine cannot run a setting, in one line; what its backend compiles is built here."""
        lacks = missing(setting.backend) or setting.unable(self._options.device)
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
                    self._unquantized.source,
                    cell.workload,
                    name,
                    asked[name],
                    setting.qat,
                    lambda done, total: self._emit(Progress(cell.id, "training", done, total)),
                )
        return assemble(pristine, made), told

    def _watch(
        self,
        cell: Cell,
        pipeline: DiffusionPipeline,
        batch: range,
        initial: torch.Tensor,
        beside: Iterable[nn.Module] = (),
    ) -> tuple[Generated, Window]:
        """The memory pass, one call under the allocator's watch; also the warm-up of what is timed next.

        ``beside``: what the cell was made of, and lies on the device besides what is loaded.
        What it returns lies on the CPU: on a CPU that is no memory of the pipeline's, and is taken off what was left.
        """
        steps = call_arguments(self._unquantized.source, cell.workload).get(_STEPS, 0)
        device = self._options.device

        def on_step(done: int) -> None:
            self._emit(Progress(cell.id, "memory pass, step", done, max(done, steps)))

        def call() -> Generated:
            return self._unquantized.call(pipeline, cell.workload, batch, initial, on_step)

        mine = modules(pipeline)
        with self._host.aside([*self._loaded_parts(), *beside], mine.values()):
            made, window = watch(call, device, mine)
        return made, window.without(made.nbytes, device)

    def _loaded_parts(self) -> list[nn.Module]:
        return [part for loaded in self._unquantized.loaded for part in modules(loaded).values()]

    def _record(self, cell: Cell, start: float, **fields: Any) -> Record:
        return Record(
            **{
                "id": cell.id,
                "pipeline": cell.pipeline.name,
                "source": self._unquantized.source.pinned or UNSET,
                "setting": cell.setting.name,
                "workload": cell.workload.name,
                "status": "ran",
                "prompts": cell.workload.prompts,
                "fingerprint": fingerprint(self._options.device),
                "seconds": time.perf_counter() - start,
                "spent": self._unquantized.spent.take(),
                **fields,
            }
        )

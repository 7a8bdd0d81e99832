"""One run of a matrix: what the plugin's hooks and ``qregress run`` delegate to. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import msgspec
from msgspec import UNSET

from qregress.config import Config
from qregress.device_lock import device_lock
from qregress.errors import StoreError, Unavailable
from qregress.judge.blame import suspects, told
from qregress.judge.history import History
from qregress.judge.verdict import judge
from qregress.matrix import REFERENCE, Cell
from qregress.produce.client import Crash, InProcess, OnEvent, Producer, Worker
from qregress.produce.protocol import Options, Say
from qregress.record import CellResult, Record
from qregress.report.sheet import write_sheet
from qregress.store.accept import Kind, as_accepted, kind_of, refusal
from qregress.store.baselines import Store
from qregress.store.history import accepted_latencies, history
from qregress.store.refresh import Refresh
from qregress.store.resume import Earlier, remember, same_options
from qregress.store.run import RunFolder

StartProducer = Callable[[Options, Path, float], Producer]


class Session:
    """Produces, judges and keeps cells; a cell is judged once, whoever asks again."""

    def __init__(
        self,
        config: Config,
        device: str,
        out: Path,
        store: Store,
        *,
        run_id: str,
        refresh: Refresh | None = None,
        in_process: bool = False,
        resume: bool = False,
        on_event: OnEvent,
        start: StartProducer = Worker,
    ) -> None:
        self.config = config
        self.device = device
        self.folder = RunFolder(out)
        self.store = store
        self._refresh = refresh
        self._run_id = run_id
        self._in_process = in_process
        self._resume = resume
        self._on_event = on_event
        self._start = start
        self._producer: Producer | None = None
        self._lock: ExitStack | None = None
        self._pipeline = ""
        self._workers = 0
        self._opened = False
        self._judged: dict[str, CellResult] = {}
        self._earlier: Earlier | None = None

    def runs_here(self, cell: Cell) -> bool:
        """Whether the cell's pipeline lists the kind of this session's device."""
        return self.device.partition(":")[0] in cell.pipeline.devices

    def verdict(self, cell: Cell) -> CellResult:
        """Produce and judge one cell, or say again what was judged: quality is never tried until it is green."""
        if cell.id not in self._judged:
            with self._measuring():
                self._open()
                with self.folder.owned():
                    kept = self.folder.result(cell.id)
                    self._judged[cell.id] = kept if kept is not None else self._judge(cell)
        return self._judged[cell.id]

    @property
    def opened(self) -> bool:
        """Whether a cell of this run has started, in whichever process, and the folder is still this run's."""
        return self.folder.belongs_to(self._run_id)

    def completing(self) -> AbstractContextManager[bool]:
        """Whether the folder is still this run's, for what is done at its end; it stays so meanwhile."""
        return self.folder.held_by(self._run_id)

    def result(self, cell_id: str) -> CellResult | None:
        """A judged cell, of this process or of another one of this run; ``None`` where it has no verdict."""
        known = self._judged.get(cell_id)
        return known if known is not None or not self.opened else self.folder.result(cell_id)

    def _open(self) -> None:
        """Take the folder with the first cell: a run that ends before it leaves the results of the last one.

        Under the device's lock, so that no other run's cell is half-way in it. Once: what is taken over stays so.
        """
        if not self._opened:
            options = self._options()
            if self._resume and same_options(self.folder.root, options):
                self._earlier = Earlier(self.folder, self.device)
            elif self._resume:
                self._on_event(
                    Say(f"{self.folder.root}: no run there with these metrics, pairs and device: all is run")
                )
            self.folder.start(self._run_id, keep=self._earlier is not None)
            remember(self.folder.root, options)
            self._opened = True

    def _say_waiting(self) -> None:
        self._on_event(Say(f"waiting for {self.device}: another run is measuring there"))

    def close(self) -> None:
        """End the worker, and give the device to others."""
        self._end_worker()
        self._give_device()

    def _give_device(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _end_worker(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Hold the device: a CPU for one cell, a GPU as long as a worker of this session has weights on it."""
        if self._lock is None:
            lock = ExitStack()
            lock.enter_context(device_lock(self.device, self._say_waiting))
            self._lock = lock
        try:
            yield
        finally:
            if self._producer is None or not self.device.startswith("cuda"):
                self._give_device()

    def _judge(self, cell: Cell) -> CellResult:
        standing = self._standing(cell)
        self.folder.mark_started(cell.id)
        record = standing or self._record(cell)
        reference = None if cell.setting.is_reference else self.folder.record(cell.reference_id)
        past, result = self._compared(cell, record, reference)
        if past is not None and record.status == "ran":
            result = self._remembered(cell, record, reference, past, result)
        if standing is not None:
            result = msgspec.structs.replace(result, notes=(*result.notes, "measured by the run that was resumed"))
        else:
            result = self._blamed(cell, record, reference, result)
        if record.draws:
            folder = self.folder.cell(cell.id)
            write_sheet(folder, record, self.folder.cell(cell.reference_id) if reference is not None else None)
        self.folder.write_result(result)
        return result

    def _standing(self, cell: Cell) -> Record | None:
        """What the run that is resumed has of a cell, if it is all that this run would have of it."""
        if self._earlier is None:
            return None
        record = self._earlier.standing(cell)
        if record is not None and record.noise is None and self._lacks_noise(cell, record):
            self._earlier.drop(cell, "its noise floor had not been measured")
            record = None
        why = self._earlier.why_not(cell)
        if why is not None:
            self._on_event(Say(f"{cell.id} is run again: {why}"))
        return record

    def _lacks_noise(self, cell: Cell, record: Record) -> bool:
        """Whether a record's noise floor would be measured if it had just been run."""
        reference = None if cell.setting.is_reference else self.folder.record(cell.reference_id)
        past, result = self._compared(cell, record, reference)
        return past is not None and self._wants_noise(cell, record, past, result)

    def _wants_noise(self, cell: Cell, record: Record, past: History, result: CellResult) -> bool:
        """What may become a baseline gets its noise floor."""
        refreshed = self._refresh is not None and self._refresh.wants(self._kind(cell, record, past, result))
        return refreshed or any(check.verdict == "new" for check in result.checks)

    def _compared(self, cell: Cell, record: Record, reference: Record | None) -> tuple[History | None, CellResult]:
        """Held against what was accepted too, where this configuration has baselines."""
        if not self.config.baselines.used:
            return None, self._held(cell, record, reference, None)
        try:
            past = history(self.store, record, lambda name: (self.folder.cell(cell.id) / name).read_bytes())
            return past, self._held(cell, record, reference, past)
        except StoreError as error:
            if self._refresh is None:
                raise
            past = History(None, str(error))  # what is damaged there is about to be replaced
            return past, self._held(cell, record, reference, past)

    def _held(self, cell: Cell, record: Record, reference: Record | None, past: History | None) -> CellResult:
        """Held against its limits and what was accepted."""
        limits = self.config.budgets.of(cell.id)
        return judge(record, reference, limits, history=past, waived=self.config.waivers)

    def _remembered(
        self, cell: Cell, record: Record, reference: Record | None, past: History, result: CellResult
    ) -> CellResult:
        """What may become a baseline gets its noise floor; what a refresh makes one is judged by itself."""
        if not self._wants_noise(cell, record, past, result):
            return result
        kind = self._kind(cell, record, past, result)
        refresh = self._refresh if self._refresh is not None and self._refresh.wants(kind) else None
        record, notes = self._with_noise(cell, record)
        if refresh is not None:
            result = self._refreshed(refresh, kind, cell, record, reference, result)
        return msgspec.structs.replace(result, notes=(*result.notes, *notes))

    def _with_noise(self, cell: Cell, record: Record) -> tuple[Record, list[str]]:
        """The record with its noise floor, and what that lacks."""
        notes: list[str] = []
        if record.noise is None:  # a resumed run may have it
            lost = "its noise floor could not be measured"
            notes = self._ask(cell, lambda producer: producer.measure_noise(cell, self._on_event), lost)
            record = self.folder.record(cell.id) or record
        unsound = [variant for variant in (record.noise.variants if record.noise else ()) if variant.unsound]
        notes += [f"noise: {variant.name} gave no image and is left out ({variant.unsound})" for variant in unsound]
        return record, notes

    def _blamed(self, cell: Cell, record: Record, reference: Record | None, result: CellResult) -> CellResult:
        """The result with what carries the loss, where its quality is what failed."""
        prompts = suspects(record, reference, result) if self.config.run.blame else ()
        if not prompts:
            return result
        lost, offload = "what carries its loss could not be told", cell.setting.offload
        if offload != "none":
            notes = [f"{lost}: with offload = '{offload}' components cannot be exchanged one by one"]
        else:
            notes = self._ask(cell, lambda producer: producer.find_blame(cell, prompts, self._on_event), lost)
        found = self.folder.record(cell.id)
        if found is not None and found.blame is not UNSET:
            notes.append(told(found.blame))
        return msgspec.structs.replace(result, notes=(*result.notes, *notes))

    def _ask(self, cell: Cell, request: Callable[[Producer], None], lost: str) -> list[str]:
        """Ask for more of the cell that has just run; that it cannot be told takes nothing of what was measured."""
        if self._producer is None:
            return [f"{lost}: the process that ran the cell is gone"]
        try:
            request(self._producer)
        except Unavailable as refusal:
            return [f"{lost}: {refusal}"]
        except Crash as crash:
            self._end_worker()
            self._on_event(Say(f"{cell.id}: {lost}: {crash}"))
            return [f"{lost}: {crash}"]
        except BaseException:
            self._end_worker()
            raise
        return []

    def _kind(self, cell: Cell, record: Record, past: History, result: CellResult) -> Kind:
        """Where the cell stands towards its baseline."""
        known = record.fingerprint is not None and self._known(record.fingerprint.device_class, cell.id)
        return kind_of(result, comparable=past.entry is not None, known=known)

    def _refreshed(
        self, refresh: Refresh, kind: Kind, cell: Cell, record: Record, reference: Record | None, result: CellResult
    ) -> CellResult:
        """The result under a refresh: judged by itself where it becomes the baseline, which the run's end writes."""
        why = refusal(record, result)
        if why is not None:
            return msgspec.structs.replace(result, notes=(*result.notes, f"NOT accepted: {why}"))
        if not refresh.proposed:
            result = self._held(cell, record, reference, History(as_accepted(record, result)))
        return msgspec.structs.replace(result, accepted=kind)

    def _known(self, device_class: str, cell: str) -> bool:
        try:
            return self.store.find(device_class, cell) is not None
        except StoreError:
            return True

    def _record(self, cell: Cell) -> Record:
        start = time.monotonic()
        reference = self.folder.record(cell.reference_id)
        if reference is not None and reference.status == "crashed" and not cell.setting.is_reference:
            record = self._crashed(cell, f"its reference crashed: {reference.message}", None)
            self.folder.write_record(record)
            return record
        try:
            self._producer_for(cell).produce(cell, self._resolve(cell), self._on_event)
        except Crash as crash:
            self._end_worker()
            record = self._crashed(cell, str(crash), crash.log, time.monotonic() - start)
            self.folder.write_record(record)
            if self.folder.record(cell.reference_id) is None:
                # The reference died on the way to this cell: the others need not die of it one by one.
                self.folder.write_record(msgspec.structs.replace(record, id=cell.reference_id, setting=REFERENCE))
            return record
        except BaseException:
            self._end_worker()
            raise
        found = self.folder.record(cell.id)
        return found if found is not None else self._crashed(cell, "the worker left no record", None)

    def _producer_for(self, cell: Cell) -> Producer:
        """One worker per pipeline, which keeps weights and reference between cells."""
        if self._producer is None or self._pipeline != cell.pipeline.name:
            self._end_worker()
            self._producer = self._new_producer(cell)
            self._pipeline = cell.pipeline.name
        return self._producer

    def _options(self) -> Options:
        """How cells are produced."""
        run, metrics = self.config.run, self.config.metrics
        return Options(
            device=self.device,
            out=str(self.folder.root),
            lpips=metrics.lpips,
            clip=metrics.clip,
            pairs=run.latency_pairs,
            time_s=run.latency_time_s,
        )

    def _new_producer(self, cell: Cell) -> Producer:
        if self._in_process:
            return InProcess(self._options())
        self._workers += 1
        log = self.folder.logs / f"{cell.pipeline.name}-{self._workers}.log"
        return self._start(self._options(), log, self.config.run.deadline_s)

    def _resolve(self, cell: Cell) -> tuple[float, ...]:
        """The latency ratios between which this cell's samples must decide."""
        limit = self.config.budgets.of(cell.id).get("latency")
        budget = (limit.value,) if limit is not None and limit.relative else ()
        if not self.config.baselines.used:
            return budget
        return (*budget, *accepted_latencies(self.store, cell.id, self.device.partition(":")[0]))

    @staticmethod
    def _crashed(cell: Cell, message: str, log: str | None, seconds: float = 0.0) -> Record:
        return Record(
            id=cell.id,
            pipeline=cell.pipeline.name,
            setting=cell.setting.name,
            workload=cell.workload.name,
            status="crashed",
            message=message,
            log=log,
            seconds=seconds,
        )

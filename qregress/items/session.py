"""What the plugin's hooks delegate to: the matrix as pytest items, verdicts as outcomes. No torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from qregress import config as configuration
from qregress import pipelines
from qregress.errors import ConfigError, QregressError
from qregress.items.handle import CellHandle
from qregress.items.keeping import Keeping
from qregress.items.order import together
from qregress.items.screen import Screen
from qregress.machine import cuda_devices
from qregress.matrix import DEVICES, Cell
from qregress.pipelines.hub import Repository
from qregress.plugin import FIXTURE, RUN_ID
from qregress.produce.client import Worker
from qregress.produce.protocol import Say
from qregress.record import CellResult
from qregress.report import terminal
from qregress.session import Session, StartProducer
from qregress.store import refresh
from qregress.store.author import commit
from qregress.store.baselines import Store
from qregress.store.writer import RunWriter
from qregress.units import format_bytes

DEFAULT_OUT = Path(".qregress") / "latest"


class PytestSession:
    """One pytest run: options, cells, and what became of them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._option = config.getoption
        self.require = bool(self._option("qregress_require"))
        self.ignores_xfail = bool(self._option("runxfail", False))
        self._screen = Screen(config)
        try:
            given = self._option("qregress_config")
            path = Path(given) if given else configuration.find(config.rootpath)
            self._registered = pipelines.registered()
            loaded = configuration.load(path, self._registered)
            self._selection, selected = loaded.selection(self._option("qregress_select"))
            device = self._device()
            wanted = refresh.parse(self._option("qregress_refresh"), self._option("qregress_reason"))
        except QregressError as error:
            raise pytest.UsageError(str(error)) from None
        out = self._option("qregress_out")
        store = Store(configuration.baselines_folder(loaded, self._option("qregress_baselines"), config.rootpath))
        self._keeping = Keeping(loaded, store, wanted)
        self._session = Session(
            loaded,
            device,
            Path(out) if out else config.rootpath / DEFAULT_OUT,
            store,
            run_id=config.stash[RUN_ID],
            refresh=wanted,
            in_process=bool(self._option("qregress_inprocess")),
            resume=bool(self._option("qregress_resume")),
            on_event=self._screen.on_event,
            start=self._starter(),
        )
        self._cells = {cell.id: cell for cell in loaded.cells()}
        self._selected = frozenset(selected)
        #: Tests of cells that only the selection keeps from running.
        self._outside = 0
        self._chosen: set[str] = set()
        #: A cell has been judged: there is a folder to be completed.
        self._began = False
        #: What became of the run's results, where they are gone.
        self._lost = ""
        self._writer = RunWriter(
            self._session.folder, list(self._cells), commit=commit(config.rootpath), selection=self._selection
        )

    def check(self) -> None:
        """A folder and a CUDA device that were asked for can be used: ``UsageError``, exit code 4, if not.

        The default folder is no concern of a run that may have no cells.
        """
        if self._option("qregress_out"):
            self._check_folder()
        device = self._session.device
        if not device.startswith("cuda"):
            return
        index = int(device.partition(":")[2] or 0)
        if index < cuda_devices():
            return
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            reason = f"torch {torch.__version__} sees {count} CUDA devices" if count else "torch sees no CUDA device"
            raise pytest.UsageError(f"{device} was asked for, but {reason}; nothing was run (see nvidia-smi)")

    def _check_folder(self) -> None:
        try:
            self._session.folder.check()
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None

    def _starter(self) -> StartProducer:
        """Worker processes; a plugin registered as ``qregress-producer`` may stand in, to test wiring alone."""
        other = self._config.pluginmanager.get_plugin("qregress-producer")
        start: StartProducer = Worker if other is None else other.start
        return start

    def _device(self) -> str:
        device = self._option("qregress_device") or "cpu"
        if device == "auto":
            if cuda_devices():
                return "cuda"
            import torch

            return "cuda" if torch.cuda.is_available() else "cpu"
        kind, _, index = device.partition(":")
        if kind not in DEVICES or (index and not (kind == "cuda" and index.isdigit())):
            raise ConfigError(f"--qregress-device: unknown device '{device}'; allowed: auto, cpu, cuda, cuda:N")
        return str(device)

    def parametrize(self, metafunc: pytest.Metafunc) -> None:
        """One item per cell, ids readable and the same in every process."""
        metafunc.parametrize(FIXTURE, list(self._cells), ids=list(self._cells), indirect=True)

    def handle(self, cell_id: str, node: pytest.Item) -> CellHandle:
        """What a test gets."""
        return CellHandle(self._cells[cell_id], self, node)

    def select(self, items: list[pytest.Item]) -> None:
        """Deselect cells of other devices and selections, and see whether results can be kept where cells will run."""
        self._check_registered()
        kept: list[pytest.Item] = []
        gone: list[pytest.Item] = []
        for item in items:
            cell_id = _cell_of(item)
            selected = cell_id is None or cell_id in self._selected
            runs = cell_id is None or self._session.runs_here(self._cells[cell_id])
            (kept if runs and selected else gone).append(item)
            self._outside += not selected
            if cell_id is not None and selected and not runs:
                pipeline = self._cells[cell_id].pipeline
                kind = self._session.device.partition(":")[0]
                listed = " and ".join(pipeline.devices)
                reason = f"pipeline '{pipeline.name}' lists {listed} in devices, and this run is on {kind}"
                self._writer.skip(cell_id, reason)
        if gone:
            items[:] = kept
            self._config.hook.pytest_deselected(items=gone)
        if any(_cell_of(item) for item in kept) and not self._option("collectonly"):
            chosen = {cell_id for item in kept if (cell_id := _cell_of(item))}
            self._keeping.check(chosen)
            self._check_folder()
            self._fetch({self._cells[cell_id].pipeline.source for cell_id in chosen})

    def _fetch(self, sources: set[str]) -> None:
        """Have files of pipelines that will run on this machine: no cell's deadline is for downloading."""
        for source in sorted(source for source in sources if source.startswith("hub:")):
            try:
                found = pipelines.check(source)
                if isinstance(found, Repository):
                    self._screen.on_event(Say(f"fetching {source}: {format_bytes(found.missing)}"))
                    pipelines.whole(found)
            except QregressError as error:
                raise pytest.UsageError(str(error)) from None

    def _check_registered(self) -> None:
        """No pipeline was registered after the matrix was made: it would be missing from it without a word."""
        known = {pipeline.name for pipeline in self._registered}
        try:
            late = [pipeline for pipeline in pipelines.registered() if pipeline.name not in known]
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        for pipeline in late:
            file = pipeline.factory.file if pipeline.factory is not None else pipeline.source
            raise pytest.UsageError(
                f"{file}: pytest reads it too late for the matrix to have pipeline '{pipeline.name}'; "
                f"register it in {self._config.rootpath / 'conftest.py'}"
            )

    def regroup(self, items: list[pytest.Item]) -> None:
        """Keep cells of one pipeline together, and know those that nothing has taken away."""
        items[:] = together(items, self._pipeline_of)
        self._chosen.update(cell_id for item in items if (cell_id := _cell_of(item)))

    def _pipeline_of(self, item: pytest.Item) -> str | None:
        cell_id = _cell_of(item)
        return self._cells[cell_id].pipeline.name if cell_id is not None else None

    @property
    def pipelines(self) -> dict[str, str]:
        """Cell id to name of its pipeline."""
        return {cell_id: cell.pipeline.name for cell_id, cell in self._cells.items()}

    def announce(self, items: list[pytest.Item]) -> None:
        """Which configuration is run: a misspelt file name must not pass for the embedded matrix unseen."""
        if not self._chosen or self._option("collectonly"):  # none also where collecting ended with an error
            return
        count = sum(_cell_of(item) is not None for item in items)
        path = self._session.config.path
        if path == configuration.embedded_path():
            part = "settings" if self._registered else "matrix"
            what = f"the embedded {part}, as there is no qregress.toml in {self._config.rootpath}"
        else:
            what = str(path)
        which = "" if self._selection == configuration.EVERYTHING else f", selection '{self._selection}'"
        self._screen.announce(count, f"{what}{which}: {count} cells on {self._session.device}")

    def verdict(self, cell: Cell) -> CellResult:
        """Produce and judge."""
        try:
            return self._session.verdict(cell)
        finally:
            self._screen.end_note()

    def leave(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """A test has ended: a pipeline that the next one does not need is no longer on a GPU, nor holds it."""
        pipeline = self._pipeline_of(item)
        wanted = self._pipeline_of(following) if following is not None else None
        if self._session.device.startswith("cuda") and pipeline is not None and pipeline != wanted:
            self._session.close()

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self._session.folder.root

    def take(self, cell_id: str) -> None:
        """A cell's test has ended, here or in a worker process."""
        self._began = True
        result = self._session.result(cell_id)
        if result is not None:
            self._writer.add(result)
            if self._session.opened:
                self._writer.write(complete=False)
            self._screen.on_result(result)

    def merge(self, told: dict[str, Any]) -> None:
        """What ``finish`` returned in a worker of xdist, of which each collects all cells."""
        self._chosen.update(told["chosen"])
        for cell_id, reason in told["not_run"].items():
            self._writer.skip(cell_id, reason)

    def finish(self, session: pytest.Session) -> dict[str, Any]:
        """End the worker process, complete ``run.json``; returns what the controller of xdist must know."""
        self._session.close()
        told = {"chosen": sorted(self._chosen), "not_run": self._writer.not_run}
        if hasattr(self._config, "workerinput") or self._option("collectonly"):
            return told
        with self._session.completing() as ours:
            judged = {result.id for result in self._writer.results}
            for cell_id in self._chosen - judged:
                begun = ours and self._session.folder.was_started(cell_id)
                self._writer.skip(
                    cell_id, "interrupted before it had a verdict" if begun else "the run ended before it"
                )
            if ours:
                self._complete(session, judged)
            elif self._began:
                self._lose()
        unwell = bool(self._lost) or bool(self._keeping.orphans) or (self.require and bool(self._writer.not_run))
        if unwell and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return told

    def _complete(self, session: pytest.Session, judged: set[str]) -> None:
        """Write ``run.json`` and baselines, and look for orphans."""
        ended = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        complete = ended and self._chosen <= judged
        # Under -x the exit status is that of a run that went through.
        stopped = not ended or (not complete and bool(session.shouldfail or session.shouldstop))
        if stopped:
            self._writer.take_back(f"NOT accepted, as the run ended early; to accept it: {self._accept_it}")
        self._writer.write(complete=complete)
        self._keep_baselines(complete=complete)
        if complete and self._is_full():
            self._keeping.look_for_orphans(self._cells)

    def _lose(self) -> None:
        """Another run has emptied the folder between this one's last cell and its end."""
        self._lost = (
            f"{self.root}: another run took over this folder before this one had ended, whose records and images are "
            "gone; give each run its own with --qregress-out"
        )
        self._writer.take_back("NOT accepted, as another run has taken over the folder of its images")

    def _is_full(self) -> bool:
        """Whether every cell of the selection was run, or is another device's."""
        return self._chosen | self._writer.not_run.keys() >= self._selected

    @property
    def _accept_it(self) -> str:
        return f"qregress accept {self.root} --reason …"

    def _keep_baselines(self, *, complete: bool) -> None:
        """Write what was refreshed. Raises ``UsageError`` where that fails; then the run can still be accepted."""
        try:
            marked = {result.id for result in self._writer.results if result.accepted is not None}
            kept = self._keeping.write(self._writer.results, self.root, self._config.rootpath)
            if kept < marked:
                self._writer.take_back("NOT accepted: its baseline changed while the run was under way", but=kept)
                self._writer.write(complete=complete)
        except QregressError as error:
            self._writer.take_back("NOT accepted, as the baselines could not be written")
            with contextlib.suppress(OSError):
                self._writer.write(complete=complete)
            raise pytest.UsageError(f"{error}; the run is kept: {self._accept_it}") from None

    @property
    def has_news(self) -> bool:
        """Whether there is anything to report: most pytest runs have nothing to do with cells."""
        return self._session.opened or bool(self._lost) or bool(self._writer.not_run) or self._outside > 0

    def summarize(self, reporter: pytest.TerminalReporter) -> None:
        """The table and the counts, under pytest's own summary."""
        if not self.has_news:
            return
        width = reporter._tw.fullwidth  # noqa: SLF001 - the reporter's own width is not public
        reporter.section("qregress")
        reporter.write(self.report(width, color=reporter._tw.hasmarkup))  # noqa: SLF001

    def report(self, width: int, *, color: bool) -> str:
        """The table, the counts and the path of the results."""
        written = self._session.folder.run_json if self._session.opened and not self._lost else None
        text = terminal.summary(self._writer.results, self._writer.not_run, written, width=width, color=color)
        outside = len(self._cells.keys() - self._selected)
        if outside:
            runs = "qregress run --all, or --qregress-select=all for pytest, runs them"
            which = "1 more cell is" if outside == 1 else f"{outside} more cells are"
            text += f"{which} not in the selection '{self._selection}': {runs}\n"
        text += self._keeping.report(width, color=color)
        return f"{text}{self._lost}\n" if self._lost else text

    def failures(self) -> list[str]:
        """What failed, at length."""
        failed = [result for result in self._writer.results if result.verdict in ("fail", "crashed")]
        return [f"{result.id}: {terminal.failure(result, self.root)}" for result in failed]


def _cell_of(item: pytest.Item) -> str | None:
    """The id of the cell that an item runs."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(FIXTURE) if callspec is not None else None

"""``run.json`` while a run is under way."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from qregress.config import EVERYTHING
from qregress.record import CellResult, Run
from qregress.store.run import RunFolder, now


class RunWriter:
    """Keeps ``run.json`` true after every cell, so that an interrupted run leaves a valid one, marked incomplete."""

    def __init__(
        self, folder: RunFolder, order: list[str], *, commit: str | None = None, selection: str = EVERYTHING
    ) -> None:
        self._folder = folder
        self._commit = commit
        self._selection = selection
        self._order = order
        self._started = now()
        self._results: dict[str, CellResult] = {}
        self._not_run: dict[str, str] = {}

    @property
    def results(self) -> list[CellResult]:
        """Judged cells in the matrix's order."""
        rank = {cell_id: index for index, cell_id in enumerate(self._order)}
        return sorted(self._results.values(), key=lambda result: rank.get(result.id, len(rank)))

    @property
    def not_run(self) -> dict[str, str]:
        """Cells that were not run, and why."""
        missing = {result.id: result.message or "" for result in self.results if result.status == "not-run"}
        return self._not_run | missing

    def skip(self, cell_id: str, reason: str) -> None:
        """Count a cell that is not run."""
        self._not_run[cell_id] = reason

    def add(self, result: CellResult) -> None:
        """Take one more judged cell."""
        self._results[result.id] = result

    def take_back(self, note: str, but: Collection[str] = ()) -> None:
        """What was marked has not become a baseline after all, ``but`` some cells."""
        for cell, result in self._results.items():
            if result.accepted is not None and cell not in but:
                self._results[cell] = msgspec.structs.replace(result, accepted=None, notes=(*result.notes, note))

    def write(self, *, complete: bool) -> None:
        """Write ``run.json``."""
        record = next((r for cell in self._results if (r := self._folder.record(cell)) and r.fingerprint), None)
        self._folder.write_run(
            Run(
                fingerprint=record.fingerprint if record is not None else None,
                started=self._started,
                finished=now() if complete else None,
                complete=complete,
                commit=self._commit,
                selection=self._selection,
                not_run=self.not_run,
                cells=tuple(self.results),
            )
        )

"""Baselines over one pytest run: looked at before it, written and counted at its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from qregress.config import Config
from qregress.errors import QregressError, StoreError
from qregress.record import CellResult
from qregress.report import baselines
from qregress.store import refresh
from qregress.store.accept import Acceptance
from qregress.store.author import author
from qregress.store.baselines import Key, Store
from qregress.store.refresh import Refresh


class Keeping:
    """The store of a run, and what became of it."""

    def __init__(self, config: Config, store: Store, wanted: Refresh | None) -> None:
        self._config = config
        self._store = store
        self._wanted = wanted
        self._accepted: tuple[Store, Acceptance] | None = None
        self.orphans: list[Key] = []

    def check(self, cells: Collection[str]) -> None:
        """What cells will be compared with is what was accepted, and a refresh will be able to write.

        Raises ``UsageError``: better before an hour of measuring than after it.
        """
        wanted = self._wanted
        if not self._config.baselines.used:
            if wanted is not None:
                raise pytest.UsageError('[baselines] store = "none": there are no baselines to refresh')
            return
        try:
            self._store.check(writable=wanted is not None and not wanted.proposed)
            damaged = [text for key, text in self._store.damage().items() if key.cell in cells]
        except StoreError as error:
            raise pytest.UsageError(str(error)) from None
        if damaged and (wanted is None or not wanted.wants("changed")):
            more = f" (and {len(damaged) - 1} more: qregress orphans lists them)" if len(damaged) > 1 else ""
            raise pytest.UsageError(f"{damaged[0]}{more}")

    def write(self, results: Sequence[CellResult], out: Path, root: Path) -> set[str]:
        """Write what was refreshed, all of it or nothing; returns the cells that have become baselines.

        Fewer than were marked, where somebody else has accepted some meanwhile. Raises ``QregressError`` with one line.
        """
        marked = [result for result in results if result.accepted is not None]
        if self._wanted is None or not marked:
            return set()
        self._accepted = refresh.write(
            self._wanted,
            self._store,
            out,
            marked,
            author(root),
            waived=self._config.waivers,
            images=self._config.baselines.images,
        )
        return {change.id for change in self._accepted[1].changes} if self._accepted is not None else set()

    def look_for_orphans(self, cells: Collection[str]) -> None:
        """After every cell of the configuration has run: which baselines does none of them ask for?"""
        try:
            if self._config.baselines.used:
                self.orphans = [key for key in self._store.places() if key.cell not in cells]
        except QregressError as error:
            raise pytest.UsageError(str(error)) from None

    def report(self, width: int, *, color: bool) -> str:
        """What was accepted, and what nothing asks for."""
        text = ""
        if self._accepted is not None:
            text += baselines.accepted(*self._accepted, width=width, color=color)
        if self.orphans:
            text += baselines.orphans(self.orphans, self._store, self._config.path)
        return text

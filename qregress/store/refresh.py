"""``--qregress-refresh``: which cells of a run become baselines at its end, and where those go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from qregress.errors import ConfigError, StoreError, nearest
from qregress.judge.waivers import Waiver
from qregress.record import CellResult
from qregress.store.accept import Acceptance, Kind, Reason, accept
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun

MODES: dict[str, tuple[Kind, ...]] = {
    "missing": ("new",),
    "failing": ("failing", "changed"),
    "all": ("new", "changed", "failing", "same"),
}
PROPOSED = "proposed-baselines"
_OFF = ("", "0", "false", "no")


class Refresh(msgspec.Struct, frozen=True):
    """``proposed``: the run is CI's, whose baselines are a proposal beside its results."""

    mode: str
    reason: str
    proposed: bool

    def wants(self, kind: Kind) -> bool:
        """Whether a cell that stands so towards its baseline is refreshed."""
        return kind in MODES[self.mode]


def parse(mode: str | None, reason: str | None, environment: Mapping[str, str] = os.environ) -> Refresh | None:
    """From the options. Raises ``ConfigError`` with one line."""
    if mode is None:
        if reason is not None:
            raise ConfigError("--qregress-reason says why baselines are refreshed; add --qregress-refresh")
        return None
    if mode not in MODES:
        raise ConfigError(f"--qregress-refresh: unknown mode '{mode}'; {nearest(mode, MODES)}")
    text = (reason or "").strip()
    if not text and mode != "missing":
        raise ConfigError(
            f'--qregress-refresh={mode} overwrites baselines; say why, as in --qregress-reason "torch 2.14"'
        )
    ci = environment.get("CI", "").lower() not in _OFF
    return Refresh(mode, text or "first record", proposed=ci)


def write(
    refresh: Refresh,
    store: Store,
    out: Path,
    results: Sequence[CellResult],
    by: str,
    *,
    waived: Sequence[Waiver],
    images: bool,
) -> tuple[Store, Acceptance] | None:
    """At the end of a run: make the cells that were marked baselines, or the proposal of CI.

    ``None`` where nothing was marked. Raises ``StoreError`` with one line; then the store is what it was.
    """
    cells = [result.id for result in results if result.accepted is not None]
    if not cells:
        return None
    target = _proposal(store, out) if refresh.proposed else store
    with FinishedRun(out) as run:
        # A store may have changed since a cell was marked: what it is now decides, under its lock.
        kinds = MODES[refresh.mode]
        reason = Reason(by=by, why=refresh.reason)
        found = accept(target, run, cells, reason, kinds=kinds, waived=waived, images=images)
    if refresh.proposed:
        target = _published(target, out / PROPOSED)
    return target, found


def _proposal(store: Store, out: Path) -> Store:
    """All of the store, so that it can take the store's place, under a name that nobody takes for a whole one yet."""
    target = Store(out / f".{PROPOSED}")
    shutil.rmtree(target.root, ignore_errors=True)
    store.copy(target.root)
    return target


def _published(proposal: Store, target: Path) -> Store:
    try:
        shutil.rmtree(target, ignore_errors=True)
        proposal.root.rename(target)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror or error}") from None
    return Store(target)

"""What the tests of a store share: a run of three cells, accepted, and a later one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qregress.errors import StoreError
from qregress.store.accept import accept
from qregress.store.baseline import Entry
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from tests.store_making import CLASS, REASON, cells_of, matrix_ids, write_matrix_run

REFERENCE, FIRST, SECOND = matrix_ids(2)
PLACE = f"{CLASS}/{FIRST}"


def found(store: Store, cell: str = FIRST) -> Entry:
    """An entry that is there."""
    entry = store.find(CLASS, cell)
    assert entry is not None
    return entry


def complaint(act: Callable[[], object]) -> str:
    """The one line of a store that cannot be read or written."""
    with pytest.raises(StoreError) as caught:
        act()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def take(store: Store, run: Path, cells: list[str] | None = None) -> None:
    """Accept a run."""
    with FinishedRun(run) as finished:
        accept(store, finished, cells_of(run) if cells is None else cells, REASON)


def other(tmp_path: Path) -> Path:
    """A later run whose every figure and image differs."""
    return write_matrix_run(tmp_path / "later", 2, step=7)

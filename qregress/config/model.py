"""A configuration, as the rest of qregress sees it."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from qregress.errors import ConfigError, nearest
from qregress.judge.budgets import Budgets
from qregress.judge.waivers import Waiver
from qregress.matrix import Cell, Pipeline, Setting, Workload, product

#: The selection of all cells, which every configuration has.
EVERYTHING = "all"
Kept = Literal["images", "hash", "none"]


class Baselines(msgspec.Struct, frozen=True):
    """Where baselines are (``None``: ``baselines/`` in the root), and what is kept of references.

    ``images``: their images too; ``hash``: digests only; ``none``: there are no baselines, cells have budgets alone.
    """

    path: Path | None = None
    store: Kept = "images"

    @property
    def used(self) -> bool:
        """Whether cells are compared with the past."""
        return self.store != "none"

    @property
    def images(self) -> bool:
        """Whether references' images are kept."""
        return self.store == "images"


class Metrics(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which weights score the images; there is no silent fallback."""

    lpips: str = "st-alex"
    clip: str = "pocket"


class Run(msgspec.Struct, frozen=True):
    """How cells are run.

    ``deadline_s``: after that long without an end a cell is killed. ``latency_pairs``: at least as many interleaved
    pairs are timed. ``latency_time_s``: after that long no further pair is added to make a decision clear. ``select``:
    the selection that is run where none is named; ``None``: all cells. ``blame``: whether a cell whose quality fails is
    run again to find the part that carries the loss.
    """

    deadline_s: float
    latency_pairs: int
    latency_time_s: float
    select: str | None = None
    blame: bool = True


class Config(msgspec.Struct, frozen=True):
    """A validated configuration."""

    path: Path
    pipelines: tuple[Pipeline, ...]
    settings: tuple[Setting, ...]
    workloads: tuple[Workload, ...]
    metrics: Metrics
    budgets: Budgets
    run: Run
    waivers: tuple[Waiver, ...] = ()
    baselines: Baselines = Baselines()
    selections: dict[str, tuple[str, ...]] = {}

    def selection(self, name: str | None) -> tuple[str, Collection[str]]:
        """The name of a selection and the ids of its cells; the configuration's own choice where none is named.

        Raises ``ConfigError`` for a name that it does not have.
        """
        chosen = name if name is not None else self.run.select or EVERYTHING
        ids = [cell.id for cell in self.cells()]
        if chosen == EVERYTHING:
            return chosen, ids
        if chosen not in self.selections:
            known = nearest(chosen, [*self.selections, EVERYTHING])
            raise ConfigError(f"{self.path}: no selection '{chosen}'; {known}")
        patterns = self.selections[chosen]
        return chosen, [cell for cell in ids if any(Budgets.matches(pattern, cell) for pattern in patterns)]

    def cells(self) -> list[Cell]:
        """The matrix, references included, in its stable order."""
        return product(self.pipelines, self.settings, self.workloads)


def embedded_path() -> Path:
    """The configuration inside the package, used where a project has none."""
    return Path(str(resources.files("qregress") / "embedded.toml"))


def find(root: Path) -> Path:
    """``qregress.toml`` in ``root``, else the embedded one."""
    path = root / "qregress.toml"
    return path if path.exists() else embedded_path()


def baselines_folder(config: Config, given: str | None, root: Path) -> Path:
    """Where baselines are: command line, then configuration, then ``baselines/`` in the root."""
    if given is not None:
        return Path(given)
    return config.baselines.path if config.baselines.path is not None else root / "baselines"

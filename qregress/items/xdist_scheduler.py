"""How xdist hands out cells. Imported only when xdist asks for a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xdist.scheduler import LoadScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

#: Which pipeline's cell a node id names, ``None`` for an ordinary test.
PipelineOf = Callable[[str], str | None]


class PipelineScheduling(LoadScheduling):
    """``--dist=load``, except that a chunk that ends in a pipeline is filled up to its last cell.

    Items of a pipeline follow each other (``order.together``), so all go to one worker, and weights are loaded once.
    Ordinary tests are handed out as ever, which ``LoadScopeScheduling`` would not do: with a scope for each of them it
    sends them one by one, and cannot take back a crashed worker's test for rerunfailures.
    """

    def __init__(self, config: pytest.Config, log: Producer | None, pipeline_of: PipelineOf) -> None:
        super().__init__(config, log)
        self._pipeline_of = pipeline_of

    def _send_tests(self, node: WorkerController, num: int) -> None:
        if 0 < num < len(self.pending) and (pipeline := self._pipeline(num - 1)) is not None:
            while num < len(self.pending) and self._pipeline(num) == pipeline:
                num += 1
        super()._send_tests(node, num)

    def _pipeline(self, index: int) -> str | None:
        """Of the test that is that far from being handed out."""
        assert self.collection is not None  # noqa: S101 - as in the class above
        return self._pipeline_of(self.collection[self.pending[index]])


def cell_in(node_id: str, cells: Callable[[], dict[str, str]]) -> str | None:
    """The pipeline of the cell in a node id, which may have other parameters beside it.

    ``cells``, from id to pipeline, is asked only for a node id that looks as if it had one: most suites have none.
    """
    parameters = node_id.partition("[")[2].rstrip("]")
    if "/" not in parameters.partition("/")[2]:
        return None
    found = [cell for cell in cells() if f"-{cell}-" in f"-{parameters}-"]
    return cells()[max(found, key=len)] if found else None

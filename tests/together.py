"""Imported only when xdist asks for a scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer


class Together(LoadScopeScheduling):
    """Modules go to whichever process is free, in the tests' order; those of one folder go to one process.

    ``--dist=loadgroup`` would do it with marks, but beside pytest 9.2 xdist 3.8 no longer keeps groups together, and
    processes that wait for each other's device take as long as one.
    """

    def __init__(self, config: pytest.Config, log: Producer | None, folder: str) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, which says nothing of their time
        self._folder = folder

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return self._folder if scope.startswith(self._folder) else scope

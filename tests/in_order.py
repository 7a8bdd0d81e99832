"""Imported only when xdist asks for a scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer


class InOrder(LoadScopeScheduling):
    """Modules go to whichever process is free, in the tests' order: what takes longest comes first.

    ``--dist=loadgroup`` would do it with marks, but beside pytest 9.2 xdist 3.8 no longer keeps groups together.
    """

    def __init__(self, config: pytest.Config, log: Producer | None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, which says nothing of their time

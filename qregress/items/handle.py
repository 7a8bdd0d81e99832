"""A cell as a test sees it: its verdict as the test's outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qregress.errors import QregressError
from qregress.matrix import Cell
from qregress.plugin import FIXTURE
from qregress.record import CellResult
from qregress.report import terminal
from qregress.report.terminal import UNDECIDED

if TYPE_CHECKING:
    from qregress.items.session import PytestSession


def verdicts(result: CellResult) -> set[str]:
    """Of a cell and of all of its checks: a waived cell may hold some that were not decided."""
    return {result.verdict, *(check.verdict for check in result.checks)}


class CellHandle:
    """A cell as a test sees it."""

    def __init__(self, cell: Cell, session: PytestSession, node: pytest.Item) -> None:
        self.cell = cell
        self._session = session
        self._node = node

    @property
    def id(self) -> str:
        """The cell's id."""
        return self.cell.id

    def check(self) -> CellResult:
        """Run and judge the cell, and turn a verdict that is not green into the test's outcome."""
        __tracebackhide__ = True
        try:
            result = self._session.verdict(self.cell)
        except QregressError as error:  # a baseline that was damaged while cells ran, too
            pytest.fail(str(error), pytrace=False)
        told = {
            FIXTURE: result.id,
            "qregress_verdict": result.verdict,
            **dict(sorted(terminal.numbers(result).items())),
        }
        # A test that is run again has the same item, and with it what was told the first time.
        kept = [(name, value) for name, value in self._node.user_properties if name not in told]
        self._node.user_properties[:] = [*kept, *told.items()]
        waived = result.verdict == "waived" and not self._session.ignores_xfail
        if result.verdict in ("fail", "crashed") or (result.verdict == "waived" and not waived):
            pytest.fail(terminal.failure(result, self._session.root), pytrace=False)
        if self._session.require and any(verdict in UNDECIDED for verdict in verdicts(result)):
            pytest.fail(terminal.undecided(result), pytrace=False)
        if waived:
            pytest.xfail(terminal.waived(result))
        if result.verdict == "not-run":
            pytest.skip(f"NOT RUN: {result.message}")
        return result

"""``--qregress-inprocess``: no worker process, so that a debugger sees what happens."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from qregress.produce.protocol import Options
from tests.making import INT8
from tests.plugin import fake_producer
from tests.plugin.project import Project


class _Broken(fake_producer.FakeProducer):
    """Raises as a bug in a library would."""

    def produce(self, *_: object) -> NoReturn:
        """See ``Producer``."""
        raise ZeroDivisionError("a bug")


@pytest.fixture
def alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without stand-ins for worker processes, in which starting one fails."""
    monkeypatch.setattr(fake_producer, "HERE", project.path)
    monkeypatch.setattr("qregress.items.session.Worker", None)
    (project.path / "conftest.py").unlink()
    return project


def test_cells_run_in_this_process(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the option, then cells are produced here and no worker is started."""

    def here(options: Options) -> fake_producer.FakeProducer:
        return fake_producer.FakeProducer(options, Path("no.log"), 0)

    monkeypatch.setattr("qregress.session.InProcess", here)
    alone.run("--qregress-inprocess").assert_outcomes(passed=3)
    assert len(alone.produced()) == 3


def test_a_refusal_loses_no_verdict(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a loss of which nobody can tell what carries it, then the cell is judged and written, with a note."""
    monkeypatch.setattr(
        "qregress.session.InProcess", lambda options: fake_producer.FakeProducer(options, Path("no.log"), 0)
    )
    alone.behave({INT8: {"lpips": 0.2, "blame": "decline"}})
    alone.run("--qregress-inprocess").assert_outcomes(passed=2, failed=1)
    notes = next(cell.notes for cell in alone.results().cells if cell.id == INT8)
    assert "what carries its loss could not be told: nobody knows, says no.log" in notes


def test_errors_are_raised_as_they_are(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a bug, then the test fails with its traceback, and the cell has no verdict."""

    def here(options: Options) -> fake_producer.FakeProducer:
        return _Broken(options, Path("no.log"), 0)

    monkeypatch.setattr("qregress.session.InProcess", here)
    result = alone.run("--qregress-inprocess", "-k", "reference")
    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["E * ZeroDivisionError: a bug"])
    assert alone.results().cells == ()
    assert not alone.results().complete

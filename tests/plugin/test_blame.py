"""When what carries a loss is asked for, and where the answer is told."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.making import INT8, REFERENCE
from tests.plugin.project import WAYS, Project

FAR = {"lpips": 0.2}
SENTENCE = "blame: transformer carries 100% of LPIPS 0.2 (0 with it unquantized); of transformer, blocks.1 with 90%"
TOMORROW = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)


def note(project: Project, cell: str = INT8) -> list[str]:
    """What run.json says of the matter."""
    found = next(result for result in project.results().cells if result.id == cell)
    return [text for text in found.notes if "blame" in text or "loss" in text]


@WAYS
def test_a_cell_whose_quality_fails_is_blamed_once(way: str, project: Project) -> None:
    """Given one cell over its limit of LPIPS, then a part of it is named in the report and in run.json."""
    project.behave({INT8: FAR})
    result = project.run_as(way)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"{INT8}: {SENTENCE.replace('[', '[[]')}"])
    assert project.produced("blame") == [INT8]
    assert note(project) == [SENTENCE]


def test_a_regression_is_blamed_too(known: Project) -> None:
    """Given a cell within its budget but further away than when it was accepted, then a part of it is named."""
    known.behave({INT8: {"lpips": 0.04}})
    known.run().assert_outcomes(passed=2, failed=1)
    assert known.produced("blame") == [INT8]


def test_no_image_is_blamed_too(project: Project) -> None:
    """Given a cell of black images whose reference has none, then a part of it is named."""
    project.behave({INT8: {"black": True}})
    project.run().assert_outcomes(passed=2, failed=1)
    assert project.produced("blame") == [INT8]


@pytest.mark.parametrize(
    ("cell", "does"),
    [(INT8, {}), (INT8, {"missed": "proj_out"}), (INT8, {"do": "crash"}), (REFERENCE, {"black": True})],
)
def test_what_is_no_loss_of_quality_is_not_blamed(cell: str, does: dict[str, object], project: Project) -> None:
    """Given cells that pass, fail otherwise, crash, or have a broken reference, then nothing is asked for."""
    project.behave({cell: does})
    project.run()
    assert project.produced("blame") == []


def test_what_is_waived_is_not_blamed(project: Project) -> None:
    """Given a cell that fails as its waiver says, then nobody asks why."""
    project.behave({INT8: FAR})
    waiver = f'[[waivers]]\ncell = "{INT8}"\ncheck = "quality.lpips"\nreason = "known"\nissue = "https://x.test/1"\n'
    with (project.path / "qregress.toml").open("a") as stream:
        stream.write(f"{waiver}expires = {TOMORROW}\n")
    project.run().assert_outcomes(passed=2, xfailed=1)
    assert project.produced("blame") == []


@WAYS
def test_a_crash_meanwhile_loses_no_verdict(way: str, project: Project) -> None:
    """Given a worker that dies while it is asked, then the verdict stands with a note, and the other cells run."""
    project.behave({INT8: FAR | {"blame": "crash"}})
    result = project.run_as(way)
    result.assert_outcomes(passed=2, failed=1)
    assert note(project) == [
        "what carries its loss could not be told: the worker was ended by SIGSEGV; it was at: images 1/2"
    ]
    assert [cell.verdict for cell in project.results().cells] == ["pass", "fail", "pass"]


def test_a_refusal_costs_no_worker(project: Project) -> None:
    """Given a worker that cannot tell, then the verdict stands with a note, and the next cell finds it as it was."""
    project.behave({INT8: FAR | {"blame": "decline"}})
    project.run().assert_outcomes(passed=2, failed=1)
    assert note(project) == ["what carries its loss could not be told: nobody knows, says pixart-1.log"]
    assert project.produced("closed") == ["pixart-1.log"]  # at the end of the run


def test_it_can_be_switched_off(project: Project) -> None:
    """Given a configuration that does not want it, then a failing cell costs no further call, and nothing is said."""
    project.behave({INT8: FAR})
    project.configure(("[baselines]", "[run]\nblame = false\n[baselines]"))
    project.run().assert_outcomes(passed=2, failed=1)
    assert (project.produced("blame"), note(project)) == ([], [])


def test_what_is_offloaded_is_not_asked(project: Project) -> None:
    """Given components that are moved about, which cannot be exchanged, then a note says so without asking."""
    project.behave({INT8: FAR})
    project.configure(('weights = { transformer = "int8" }', 'weights = { transformer = "int8" }\noffload = "model"'))
    project.run().assert_outcomes(passed=2, failed=1)
    assert project.produced("blame") == []
    assert note(project) == [
        "what carries its loss could not be told: with offload = 'model' components cannot be exchanged one by one"
    ]


def test_after_a_crash_in_the_noise_floor(kept: Project) -> None:
    """Given a worker that died over the noise of a failing cell, then that its loss is not told is a note too."""
    kept.behave({INT8: FAR | {"noise": "crash"}})
    kept.run().assert_outcomes(passed=2, failed=1)
    assert kept.produced("blame") == []
    assert "what carries its loss could not be told: the process that ran the cell is gone" in note(kept)


def test_an_interrupt_meanwhile(project: Project) -> None:
    """Given Ctrl-C while it is asked, then the run ends, and the cell has no verdict."""
    project.behave({INT8: FAR | {"blame": "interrupt"}})
    assert project.run_apart().ret == pytest.ExitCode.INTERRUPTED
    assert [cell.id for cell in project.results().cells] == [REFERENCE]


def test_blame_is_no_part_of_a_baseline(kept: Project) -> None:
    """Given a cell that is blamed for what it was accepted with, then its baseline is the same to the byte."""
    kept.run("--qregress-refresh=missing")
    before = kept.stored()
    kept.behave({INT8: {"lpips": 0.02}})
    kept.configure(("lpips = 0.05", "lpips = 0.015"))
    kept.run()
    assert kept.produced("blame") == [INT8]
    assert kept.stored() == before

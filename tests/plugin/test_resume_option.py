"""``--qregress-resume``: what a run that was cut off has finished is not run again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qregress import machine, pipelines
from qregress.pipelines.digest import source_sha256
from qregress.store.run import RunFolder
from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import WAYS, Project

RESUME = "--qregress-resume"
#: A test asks for its own cell; the reference is made with the first of them.
ALL = [REFERENCE, INT8, INT8_TE]


def behave(project: Project, **cells: dict[str, Any]) -> None:
    """As ``Project.behave``, by setting, with the digest of the pipeline's files as a worker finds it."""
    source = source_sha256(pipelines.whole(pipelines.check(f"path:{project.path / 'pipeline'}")))
    project.behave({"*": {"source": source}} | {f"pixart/{name}/bs1": what for name, what in cells.items()})


def again(project: Project, *arguments: str, way: str = "") -> list[str]:
    """Resume; the cells that were produced for it."""
    before = len(project.produced())
    project.run_as(way, RESUME, *arguments)
    return sorted(project.produced()[before:])


@pytest.fixture
def cut(project: Project) -> Project:
    """A run of three cells of which the last crashed."""
    behave(project, **{"int8+te": {"do": "crash"}})
    project.run().assert_outcomes(passed=2, failed=1)
    assert sorted(project.produced()) == sorted(ALL)
    behave(project)
    return project


@WAYS
def test_what_crashed_is_run(cut: Project, way: str) -> None:
    """Given a cell that crashed, when the run is resumed, then it alone is produced, and all have a verdict."""
    assert again(cut, way=way) == [INT8_TE]
    run = cut.results()
    assert {cell.id: cell.verdict for cell in run.cells} == dict.fromkeys(ALL, "pass")
    assert run.complete
    told = {cell.id: any("measured by the run that was resumed" in note for note in cell.notes) for cell in run.cells}
    assert told == {REFERENCE: True, INT8: True, INT8_TE: False}


def test_nothing_is_left_to_do(cut: Project) -> None:
    """Given a run that is finished, then resuming it twice produces nothing more."""
    again(cut)
    assert again(cut) == []
    assert [cell.verdict for cell in cut.results().cells] == ["pass"] * 3


def test_other_limits_judge_what_is_there(cut: Project) -> None:
    """Given a narrower budget, then finished cells are held against it, and not run again."""
    again(cut)
    cut.configure(("lpips = 0.05", "lpips = 0.001"))
    assert again(cut) == []
    assert [cell.verdict for cell in cut.results().cells] == ["pass", "fail", "fail"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[workloads.bs1]", "[workloads.bs1]\nseed = 1"),
        ('"a large blue square"', '"a large green square"'),
        ("[budgets]", "[run]\nlatency_pairs = 9\n[budgets]"),
        ("[budgets]", '[metrics]\nlpips = "squeeze"\n[budgets]'),
    ],
    ids=["seed", "prompt", "pairs", "metric"],
)
def test_something_else_is_asked_for(old: str, new: str, cut: Project) -> None:
    """Given a workload, pairs or a metric that is another now, then every cell is run again."""
    cut.configure((old, new))
    assert again(cut) == sorted(ALL)


def test_a_setting_that_is_another_now(cut: Project) -> None:
    """Given one setting that is another now, then its cell is run again, beside the one that crashed."""
    cut.configure(("[settings.int8]\n", '[settings.int8]\nexclude = ["proj_out"]\n'))
    assert again(cut) == sorted([INT8, INT8_TE])


def test_another_version_of_a_library(cut: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an upgrade in between, then nothing that was measured before it counts."""
    monkeypatch.setattr(machine, "versions", lambda _: {"torch": "99"})
    assert again(cut) == sorted(ALL)


def test_files_that_are_others_now(cut: Project) -> None:
    """Given weights that are others now, then nothing that was made with the old ones counts."""
    behave(cut)
    source = {"*": {"source": "4" * 64}}
    cut.behave(source)
    project_file = cut.path / "pipeline" / "transformer" / "config.json"
    project_file.write_text('{"other": 1}')
    assert again(cut) == sorted(ALL)


def test_a_reference_that_crashed(project: Project) -> None:
    """Given a reference that crashed, then all that is compared with it is run again too."""
    behave(project, reference={"do": "crash"})
    project.run()
    behave(project)
    before = len(project.produced())
    project.run(RESUME).assert_outcomes(passed=3)
    assert sorted(project.produced()[before:]) == sorted(ALL)


def test_nothing_to_resume(project: Project) -> None:
    """Given no run in the folder, then all is run, and that is said."""
    behave(project)
    result = project.run(RESUME)
    result.assert_outcomes(passed=3)
    assert any("no run there with these metrics, pairs and device: all is run" in line for line in result.outlines)


def test_without_it_all_is_run(cut: Project) -> None:
    """Given a finished run, when it is not to be resumed, then every cell is run."""
    again(cut)
    before = len(cut.produced())
    cut.run().assert_outcomes(passed=3)
    assert sorted(cut.produced()[before:]) == sorted(ALL)


def test_a_noise_floor_that_is_not_there(project: Project) -> None:
    """Given a cell whose run was cut off before its noise was measured, then it is run again, and that is said."""
    project.keep_baselines()
    behave(project)
    project.run().assert_outcomes(passed=3)
    folder = RunFolder(project.path / ".qregress" / "latest")
    record = folder.record(INT8)
    assert record is not None
    assert record.noise is not None
    folder.write_record(msgspec.structs.replace(record, noise=None))
    before = len(project.produced())
    result = project.run(RESUME)
    assert project.produced()[before:] == [INT8]
    assert f"{INT8} is run again: its noise floor had not been measured" in result.stdout.str()
    again_measured = folder.record(INT8)
    assert again_measured is not None
    assert again_measured.noise is not None


def test_what_stands_is_refreshed(cut: Project) -> None:
    """Given a refresh, then finished cells become baselines with the others, and are not run for it."""
    cut.keep_baselines()
    cut.run()  # with baselines in use, noise floors are measured
    assert again(cut, "--qregress-refresh=missing") == []
    accepted = {path.parent.parent.name for path in (cut.path / "baselines").rglob("baseline.json")}
    assert accepted == {"reference", "int8", "int8+te"}

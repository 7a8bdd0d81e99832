"""``-n2``: the same ids, verdicts and counts as in one process."""

from __future__ import annotations

import pytest

from tests.making import CONFIG, INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project, usage_error

_CUDA_ONLY = '[pipelines.full-size]\nsource = "path:pipeline"\ndevices = ["cuda"]\n'


def test_two_workers(project: Project) -> None:
    """Given two workers, then each cell is produced once, and verdicts and cells that were not run are gathered."""
    (project.path / "qregress.toml").write_text(CONFIG + _CUDA_ONLY)
    project.behave({INT8: {"lpips": 0.2}})
    result = project.run_apart("-n2", "-v")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"{INT8} *fail*",
            "3 cells NOT run: pipeline 'full-size' lists cuda in devices, and this run is on cpu",
            "2 pass, 1 fail, 3 not-run",
        ]
    )
    assert sorted(project.produced()) == sorted([REFERENCE, INT8, INT8_TE])
    run = project.results()
    assert [(cell.id, cell.verdict) for cell in run.cells] == [(REFERENCE, "pass"), (INT8, "fail"), (INT8_TE, "pass")]
    assert run.complete
    assert len(run.not_run) == 3


def test_what_only_a_worker_can_see(project: Project) -> None:
    """Given a mistake that shows when cells are collected, then the controller ends with its line and exit code 4."""
    (project.path / "qregress.toml").unlink()
    (project.path / ".qregress").touch()
    message = usage_error(project.run_apart("-n1"))
    assert ".qregress is a file, not a folder; choose another folder with --qregress-out" in message

"""From verdict to pytest's outcome and exit code."""

from __future__ import annotations

import pytest

from qregress.judge import checks
from qregress.record import Check
from tests.making import INT8, INT8_TE, REFERENCE, make_check
from tests.plugin.project import Project

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED


def _compare(_: checks.Subject) -> Check:
    """As a comparison with accepted records does where there is none."""
    return make_check("new", "regression.lpips", "no accepted record")


def verdicts(project: Project) -> list[str]:
    """What ``run.json`` says of each cell."""
    return [cell.verdict for cell in project.results().cells]


def test_pass(project: Project) -> None:
    """Given cells within their budgets, then all is green and the table is shown."""
    result = project.run()
    assert result.ret == OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["*= qregress =*", "cell *memory*LPIPS*", f"{INT8} *0.0100*pass*", "3 pass", "results: *"]
    )


def test_fail(project: Project) -> None:
    """Given a cell over its budget, then it failed, with value, limit, origin and the images' paths."""
    project.behave({INT8: {"lpips": 0.2}})
    result = project.run()
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    folder = project.path / ".qregress" / "latest" / "cells" / INT8
    result.stdout.fnmatch_lines(
        [
            "quality.lpips: mean LPIPS 0.2000 over 0.05 (budget)",
            f"  images: {folder}/images",
            f"  side by side: {folder}/sheet.png",
        ]
    )
    assert (folder / "images" / "00.png").exists()
    assert (folder / "sheet.png").exists()


def test_short_summary(project: Project) -> None:
    """Given cells that failed in different ways, then on 80 columns the short summary still says in which."""
    project.configure(("lpips = 0.05", 'lpips = 0.05\nmemory = "0.10x"'))
    project.behave({INT8: {"do": "crash"}})
    lines = project.run().outlines
    short = [line.partition("] - Failed: ")[2] for line in lines if line.startswith("FAILED ")]
    assert [text[:8] for text in short] == ["crashed:", "memory.s"], lines


def test_crashed(project: Project) -> None:
    """Given a cell whose worker died, then it failed with what the worker said last, and the next one runs."""
    project.behave({INT8: {"do": "crash"}})
    result = project.run()
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["crashed: *ended by SIGSEGV; it was at: images 1/2", "  | last words in *"])
    assert verdicts(project) == ["pass", "crashed", "pass"]
    assert not result.stdout.str().count("Traceback")


def test_crashed_reference(project: Project) -> None:
    """Given a reference that crashed, then what would be compared with it crashed too, and is not tried."""
    project.behave({REFERENCE: {"do": "crash"}})
    result = project.run()
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*its reference crashed: the worker was ended by SIGSEGV*"])
    assert project.produced() == [REFERENCE]


@pytest.mark.parametrize(("options", "code"), [((), OK), (("--qregress-require",), FAILED)])
def test_void(options: tuple[str, ...], code: pytest.ExitCode, project: Project) -> None:
    """Given too few samples, then the cell passed but is named; it failed if everything must be decided."""
    project.configure(("lpips = 0.05", 'lpips = 0.05\nlatency = "1.6x"'))
    project.behave({INT8: {"pairs": 2}})
    result = project.run(*options)
    assert result.ret == code
    result.assert_outcomes(passed=3 - (code == FAILED), failed=int(code == FAILED))
    result.stdout.fnmatch_lines([f"{INT8}: void: latency.ratio: fewer than 6 interleaved pairs", "2 pass, 1 void"])


@pytest.mark.parametrize(("options", "code"), [((), OK), (("--qregress-require",), FAILED)])
def test_not_run(options: tuple[str, ...], code: pytest.ExitCode, project: Project) -> None:
    """Given a cell that this machine cannot run, then it is skipped, named and counted; failed if it must run."""
    project.behave({INT8: {"do": "not-run"}})
    result = project.run(*options)
    assert result.ret == code
    result.assert_outcomes(passed=2, skipped=int(code == OK), failed=int(code == FAILED))
    result.stdout.fnmatch_lines([f"{INT8}: NOT RUN: no compiler", "2 pass, 1 not-run"])
    assert project.results().not_run == {INT8: "no compiler"}


@pytest.mark.parametrize(("options", "code"), [((), OK), (("--qregress-require",), FAILED)])
def test_new(
    options: tuple[str, ...], code: pytest.ExitCode, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a cell that nothing was accepted for, then it passed and is counted; failed if all must be compared."""
    monkeypatch.setattr(checks, "CHECKS", (*checks.CHECKS, _compare))
    result = project.run("-k", "reference", *options)
    assert result.ret == code
    result.stdout.fnmatch_lines([f"{REFERENCE} *new*", "1 new"])


def test_budgets_bind_beside_what_is_void(project: Project) -> None:
    """Given a cell that is void in one check and over its limit in another, then it failed."""
    project.configure(("lpips = 0.05", 'lpips = 0.05\nlatency = "1.6x"'))
    project.behave({INT8_TE: {"pairs": 2, "lpips": 0.2}})
    project.run("-k", "int8+te").assert_outcomes(failed=1, deselected=2)

"""``--qregress-out``: where results go, and where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.project import Project, usage_error


def test_default(project: Project) -> None:
    """Given no option, then results lie in ``.qregress/latest``, which git ignores, and nowhere else."""
    before = {path.name for path in project.path.iterdir()}
    project.run("-p", "no:cacheprovider")
    made = {path.name for path in project.path.iterdir()} - before - {"__pycache__"}
    assert made == {".qregress", "processes.txt", "produced.txt", "closed.txt"}
    assert [path.name for path in (project.path / ".qregress").iterdir()] == ["latest"]
    assert (project.path / ".qregress" / "latest" / ".gitignore").read_text() == "*\n"


def test_another_folder(project: Project) -> None:
    """Given a folder that is not there yet, then it is made."""
    project.run("--qregress-out=a/b").assert_outcomes(passed=3)
    assert len(project.results("a/b").cells) == 3
    assert not (project.path / ".qregress").exists()


def test_an_earlier_run_is_replaced(project: Project) -> None:
    """Given an earlier run's folder, then the next run replaces it."""
    project.run("--qregress-out=out")
    (project.path / "out" / "old").touch()
    project.run("--qregress-out=out")
    assert not (project.path / "out" / "old").exists()
    assert len(project.results("out").cells) == 3


def test_ordinary_runs_leave_results_alone(project: Project) -> None:
    """Given results, when pytest runs tests that take no cells, then they are still there."""
    project.run()
    project.pytester.makepyfile(test_ordinary="def test_one(): pass")
    project.run("test_ordinary.py").assert_outcomes(passed=1)
    assert len(project.results().cells) == 3


@pytest.mark.parametrize("options", [(), ("-n2",)])
def test_foreign_files(options: tuple[str, ...], project: Project) -> None:
    """Given a folder with other files, then one line says so and nothing in it is touched, under xdist too."""
    before = sorted(path.name for path in (project.path / "pipeline").rglob("*"))
    run = project.run_apart if options else project.run
    message = usage_error(run("--qregress-out=pipeline", *options))
    assert message == "pipeline: holds other files; name an empty folder or one of an earlier run"
    assert sorted(path.name for path in (project.path / "pipeline").rglob("*")) == before


def test_a_file_in_the_way(project: Project) -> None:
    """Given a file, then one line says so and it is not touched."""
    before = (project.path / "qregress.toml").read_text()
    message = usage_error(project.run("--qregress-out=qregress.toml"))
    assert message == "qregress.toml: is a file, not a folder; choose another folder with --qregress-out"
    assert (project.path / "qregress.toml").read_text() == before


def test_a_file_in_the_way_of_the_default(project: Project) -> None:
    """Given a file where the default folder should be, then one line says so, without any option."""
    (project.path / ".qregress").touch()
    folder = project.path / ".qregress" / "latest"
    assert usage_error(project.run()).startswith(f"{folder}: {folder.parent} is a file, not a folder; choose another")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_unwritable(project: Project) -> None:
    """Given a place where nothing can be written, then one line says so, and no cell runs."""
    message = usage_error(project.run("--qregress-out=/proc/qregress/out"))
    assert message.startswith("/proc/qregress/out: cannot write results there: ")
    assert project.produced() == []

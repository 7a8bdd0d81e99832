"""``--qregress-device``: which cells run, and what is said of the others."""

from __future__ import annotations

import pytest

from tests.making import CONFIG, INT8
from tests.plugin.project import Project, usage_error

_CUDA_ONLY = '[pipelines.full-size]\nsource = "path:pipeline"\ndevices = ["cuda"]\n'
_NOT_RUN = "3 cells NOT run: pipeline '*' lists cuda in devices, and this run is on cpu"


@pytest.fixture
def mixed(project: Project) -> Project:
    """Three cells for both devices, three for CUDA alone."""
    (project.path / "qregress.toml").write_text(CONFIG + _CUDA_ONLY)
    return project


def test_cpu_is_the_default(mixed: Project) -> None:
    """Given pipelines of both kinds, when no device is named, then those for a CPU run and the others are counted."""
    result = mixed.run()
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=3, deselected=3)
    result.stdout.fnmatch_lines([_NOT_RUN, "3 pass, 3 not-run"])
    assert list(mixed.results().not_run) == [f"full-size/{name}/bs1" for name in ("reference", "int8", "int8+te")]
    assert mixed.results().complete


def test_required_cells(mixed: Project) -> None:
    """Given cells that this device does not run, when all are required, then a run of green tests fails."""
    result = mixed.run("--qregress-require")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, deselected=3)
    result.stdout.fnmatch_lines([_NOT_RUN])


def test_only_other_devices(project: Project) -> None:
    """Given no pipeline for this device, then nothing ran: no green exit code, and no results' folder."""
    project.configure(('"cpu", "cuda"', '"cuda"'))
    result = project.run()
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines([_NOT_RUN])
    assert "results:" not in result.stdout.str()
    assert not (project.path / ".qregress").exists()
    assert project.run("--qregress-require").ret == pytest.ExitCode.TESTS_FAILED


def test_only_other_devices_beside_ordinary_tests(project: Project) -> None:
    """Given ordinary tests too, then the run is as green as they are."""
    project.configure(('"cpu", "cuda"', '"cuda"'))
    project.pytester.makepyfile(test_ordinary="def test_one(): pass")
    result = project.run()
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.fnmatch_lines([_NOT_RUN])


@pytest.mark.parametrize("device", ["tpu", "cpu:0", "cuda:x", "cuda:-1", "CUDA"])
def test_unknown_device(device: str, project: Project) -> None:
    """Given a device that is none, then one line says which there are."""
    message = usage_error(project.run(f"--qregress-device={device}"))
    assert message == f"--qregress-device: unknown device '{device}'; allowed: auto, cpu, cuda, cuda:N"


def test_the_producer_is_told(project: Project) -> None:
    """Given a device, then cells are produced on it."""
    result = project.run("--qregress-device=cpu", "-k", f"{INT8}")
    result.stdout.fnmatch_lines([f"qregress: producing {INT8} on cpu*"])

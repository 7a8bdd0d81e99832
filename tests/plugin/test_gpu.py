"""``--gpu``, which the root ``conftest.py`` registers. The only tests of the wiring that import torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.project import Project, usage_error

_CONFTEST = (Path(__file__).parents[2] / "conftest.py").read_text()


def test_gpu_without_cuda(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no CUDA device, when it is asked for, then that is an error and one line, never a green run."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    project.pytester.makeconftest(_CONFTEST)
    message = usage_error(project.run_apart("--gpu"))
    assert message == "cuda was asked for, but torch sees no CUDA device; nothing was run (see nvidia-smi)"
    assert not (project.path / ".qregress").exists()


def test_a_device_of_several(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ``--gpu`` beside a device, then that CUDA device is meant, and another kind is a contradiction."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    project.pytester.makeconftest(_CONFTEST)
    message = usage_error(project.run_apart("--gpu", "--qregress-device=cuda:1"))
    assert message.startswith("cuda:1 was asked for, but torch sees no CUDA device")
    message = usage_error(project.run_apart("--gpu", "--qregress-device=cpu"))
    assert message == "--gpu contradicts --qregress-device=cpu"


def test_without_gpu(project: Project) -> None:
    """Given the same conftest without the option, then the cells for a CPU are collected."""
    project.pytester.makeconftest(_CONFTEST)
    assert "3 tests collected" in project.run("--collect-only", "-q").stdout.str()


def test_a_conftest_with_a_gpu_option_of_its_own(project: Project) -> None:
    """Given a repository whose conftest already has ``--gpu``, then the plugin does not stand in its way."""
    conftest = 'def pytest_addoption(parser):\n    parser.addoption("--gpu", action="store_true")\n'
    project.pytester.makeconftest(conftest)
    assert "3 tests collected" in project.run("--gpu", "--collect-only", "-q").stdout.str()

"""What this machine is, with a stand-in for NVML."""

from __future__ import annotations

import pynvml
import pytest

from qregress import machine

NAMES = {0: "NVIDIA H100", 1: b"NVIDIA A100", "GPU-7": "NVIDIA L4"}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, and one that is known by its UUID alone."""
    for name in ("nvmlInit", "nvmlShutdown"):
        monkeypatch.setattr(pynvml, name, lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", NAMES.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.1")


@pytest.mark.usefixtures("nvml")
@pytest.mark.parametrize(
    ("visible", "device", "name"),
    [
        ("", "cuda", "NVIDIA H100"),
        ("", "cuda:1", "NVIDIA A100"),
        ("1", "cuda", "NVIDIA A100"),
        ("1, 0", "cuda:1", "NVIDIA H100"),
        ("GPU-7", "cuda:0", "NVIDIA L4"),
    ],
)
def test_the_gpu_that_torch_would_use(visible: str, device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given GPUs that are hidden or in another order, then the name is of the one that torch gives that number."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.device_name(device) == name


@pytest.mark.usefixtures("nvml")
def test_the_driver_is_among_the_versions_of_a_gpu() -> None:
    """Given a GPU, then its driver's version is there; on a CPU no driver is."""
    assert machine.versions("cuda:0")[machine.DRIVER] == "580.1"
    assert machine.DRIVER not in machine.versions("cpu")
    assert {"torch", "torchao", "accelerate"} <= machine.versions("cpu").keys()


def test_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no driver, then a GPU has no name, and nothing is raised."""

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert machine.device_name("cuda") == ""
    assert machine.DRIVER not in machine.versions("cuda")

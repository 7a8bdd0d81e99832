"""What this machine is, with stand-ins for NVML and the driver."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


class Driver:
    """The driver's library: an error for each of two calls, the CUDA that it can do, and two devices."""

    def __init__(self, *, init: int = 0, counting: int = 0, version: int = 13000) -> None:
        self._errors = init, counting
        self._version = version
        self.woken: list[int] = []

    def cuInit(self, flags: int) -> int:  # noqa: D102, N802
        assert flags == 0
        return self._errors[0]

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: D102, N802
        count._obj.value = 2
        return self._errors[1]

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: D102, N802
        version._obj.value = self._version
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: D102, N802
        device._obj.value = 40 + ordinal
        return self._errors[1]

    def cuDevicePrimaryCtxRetain(self, _: Any, device: Any) -> int:  # noqa: D102, N802
        self.woken.append(device.value)
        return 0


@pytest.mark.parametrize(
    ("built", "driver", "count"),
    [
        ("cuda: Optional[str] = '13.0'", Driver(), 2),
        ("cuda = '12.4'\nhip = None", Driver(), 2),
        ("cuda: Optional[str] = None", Driver(), 0),
        ("cuda = None\nhip: Optional[str] = '6.2'", Driver(), 0),
        ("", Driver(), 0),
        ("cuda = '12.4'", Driver(init=100), 0),
        ("cuda = '12.4'", Driver(counting=3), 0),
        ("cuda = '13.0'", Driver(version=12080), 0),
        ("cuda = '12.8'", Driver(version=12020), 2),
        ("cuda = '12.4'", None, 0),
    ],
    ids=[
        "cuda",
        "older torch",
        "cpu",
        "rocm",
        "unknown",
        "no device",
        "no count",
        "old driver",
        "older driver",
        "no driver",
    ],
)
def test_devices_are_counted_without_torch(
    built: str, driver: Driver | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a torch for CUDA and a driver, then devices are known; else torch must be asked."""
    (tmp_path / "version.py").write_text(f"__version__ = '2.11'\n{built}\n", encoding="utf-8")
    monkeypatch.setattr(machine, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))

    def load(name: str) -> Driver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr("ctypes.CDLL", load)
    assert machine.cuda_devices() == count


@pytest.mark.parametrize(("device", "woken"), [("cuda", 40), ("cuda:1", 41)])
def test_a_device_is_woken(device: str, woken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a driver, then it makes that device's context; one that cannot is left to torch, as none is."""
    for driver, expected in ((Driver(), [woken]), (Driver(init=100), []), (Driver(counting=101), [])):
        monkeypatch.setattr("ctypes.CDLL", lambda _, driver=driver: driver)
        machine.wake(device)
        assert driver.woken == expected

    def nothing(name: str) -> Driver:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", nothing)
    machine.wake(device)


def test_an_installed_torch_says_what_it_is_for() -> None:
    """Given this torch, then its build is read without importing it as its own attribute says."""
    import torch

    assert machine._torch_cuda() == int((torch.version.cuda or "0").partition(".")[0])

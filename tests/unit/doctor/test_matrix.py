"""Which cells can run: counted over devices, with a reason for each that cannot."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qregress import config
from qregress.config import Config
from qregress.doctor import abilities, devices
from qregress.doctor.abilities import Ability
from qregress.doctor.devices import Device
from qregress.doctor.matrix import examine, needs
from qregress.quantize import BACKENDS
from tests.making import write_project

_CONFIG = """
[pipelines.both]
source = "path:pipeline"
devices = ["cpu", "cuda"]
[pipelines.large]
source = "path:pipeline"
[settings.int8]
weights = { transformer = "int8" }
[settings.int4]
weights = { transformer = "int4" }
"""
_CPU, _CUDA = Device("cpu", "a CPU"), Device("cuda:0", "a GPU")
_NO_INT4 = Ability("quanto", _CPU, {"int4": "no C++ compiler"}, "C++ compiler")


@pytest.fixture
def loaded(tmp_path: Path) -> Config:
    """Six cells, three of them for CUDA alone."""
    return config.load(write_project(tmp_path, _CONFIG))


def test_needs(loaded: Config) -> None:
    """Given a configuration, then each device's weight types are those of the cells that it runs."""
    found = needs(loaded)
    assert found.weights == {("quanto", "cpu"): {"int8", "int4"}, ("quanto", "cuda"): {"int8", "int4"}}
    assert not found.cuda_only


def test_cpu_alone(loaded: Config) -> None:
    """Given no CUDA device, then its pipeline's cells are not run, which is no problem while others are."""
    cells, facts = examine(loaded, [Ability("quanto", _CPU, {})])
    assert (cells.total, cells.here) == (6, 3)
    assert cells.not_here == {"pipeline 'large' lists only cuda in devices": 3}
    assert [(fact.name, fact.state) for fact in facts] == [
        ("configuration", "ok"),
        ("cells on cpu", "ok"),
        ("cells on cuda", "absent"),
        ("3 cells NOT run here", "absent"),
    ]


def test_a_weight_type_is_lacking(loaded: Config) -> None:
    """Given a CPU without int4, then its cell cannot run, by a cause that is counted elsewhere."""
    cells, facts = examine(loaded, [_NO_INT4])
    assert (cells.here, cells.not_here["int4: no C++ compiler"]) == (2, 1)
    assert facts[1].detail == "2 of 3 can run; 1 cannot: int4: no C++ compiler"
    assert (facts[1].state, facts[1].cause) == ("missing", "C++ compiler")


def test_another_device_can(loaded: Config) -> None:
    """Given a CUDA device that can what the CPU cannot, then all cells can run somewhere."""
    cells, facts = examine(loaded, [_NO_INT4, Ability("quanto", _CUDA, {})])
    assert (cells.here, cells.not_here) == (6, {})
    assert [fact.state for fact in facts] == ["ok", "missing", "ok"]


def test_what_no_weight_type_says(tmp_path: Path) -> None:
    """Given settings that a CPU cannot run for their offload or activations, then their cells are not counted."""
    text = _CONFIG.replace(
        '[settings.int4]\nweights = { transformer = "int4" }\n',
        '[settings.moved]\nweights = { transformer = "int8" }\noffload = "model"\n'
        '[settings.active]\nbackend = "torchao"\nweights = { transformer = "float8" }\n'
        'activations = { transformer = "float8" }\n',
    )
    loaded = config.load(write_project(tmp_path, text))
    asked = needs(loaded).weights
    assert asked["torchao", "cpu"] == {"float8", "float8 activations"}
    found = abilities.abilities([_CPU], asked)
    cells, _ = examine(loaded, found)
    reasons = list(cells.not_here)
    assert any(reason.startswith("offload = 'model' moves weights between a CUDA device") for reason in reasons)
    assert any(reason.startswith("float8 activations: ") for reason in reasons)
    assert cells.here == 2  # of pipeline "both", the reference and int8


def test_abilities_of_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given this machine, then int8 and float8 are tried on its CPU; a backend that cannot be imported runs nothing."""
    found, _ = devices.devices(cuda_only=False)
    ability = abilities.abilities(found)[0]
    assert (ability.name, {"int8", "float8"}.isdisjoint(ability.lacks)) == ("quanto on cpu", True)
    kinds = ("float8", "int8", "int4", "int2")
    broken = msgspec.structs.replace(BACKENDS["quanto"], module="qregress.quantize.no_such_backend", weights=kinds)
    monkeypatch.setitem(BACKENDS, "quanto", broken)
    ability = abilities.abilities(found)[0]
    assert (tuple(ability.lacks), ability.cause) == (kinds, "")
    fact = abilities.facts([ability], {("quanto", "cpu"): {"int8"}})[0]
    assert fact.state == "missing"
    assert fact.detail.startswith("nothing; not float8, int8, int4, int2: ModuleNotFoundError: No module named")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs)", "570.86.15"),
        ("something else", None),
    ],
)
def test_driver(text: str, version: str | None, tmp_path: Path) -> None:
    """Given what the driver says of itself, in both its forms, then its version is read."""
    (tmp_path / "version").write_text(text + "\nGCC version: gcc 12.2.0\n")
    assert devices.driver(tmp_path / "version") == version
    assert devices.driver(tmp_path / "nowhere") is None

"""The registry: what it says of a backend without its library, and when that is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from qregress.errors import ConfigError
from qregress.quantize import BACKENDS, load_backend, missing, weight_types
from qregress.quantize.base import Spec


def test_no_torch() -> None:
    """Given an import of the registry alone, then torch is not imported: a plugin loads it in every pytest run."""
    code = "import sys, qregress.quantize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.part"])
def test_a_package_that_is_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a backend without its package, then one line says which extra to install."""
    monkeypatch.setitem(BACKENDS, "torchao", msgspec.structs.replace(BACKENDS["torchao"], package=package))
    with pytest.raises(ConfigError) as caught:
        load_backend("torchao")
    assert str(caught.value) == f"backend 'torchao' needs the {package} package: pip install 'qregress[torchao]'"


def test_what_is_offered_is_there() -> None:
    """Given what the registry offers, then each backend's own table has it."""
    torchao = pytest.importorskip("qregress.quantize.torchao", reason="torchao is not installed")
    layerwise = importlib.import_module("qregress.quantize.layerwise")
    pairs = {(kind, None) for kind in weight_types("torchao")}
    assert torchao.CONFIGS.keys() == pairs | {(kind, kind) for kind in BACKENDS["torchao"].activations}
    assert layerwise.STORAGE.keys() == set(weight_types("layerwise"))


def test_calibration_sets_scales() -> None:
    """Given int8 activations of quanto, then a call sets a layer's scale, and one outside of calibration does not."""
    quanto = importlib.import_module("qregress.quantize.quanto")
    model = nn.Sequential(nn.Linear(64, 64))
    quanto.apply(model, Spec(weights="int8", activations="int8"))
    with torch.no_grad(), load_backend("quanto").calibration():
        model(torch.full((1, 64), 2.0))
    with torch.no_grad():
        model(torch.full((1, 64), 8.0))
    layer: Any = model[0]
    assert layer.input_scale.item() == pytest.approx(2 / 127)


@pytest.mark.parametrize("name", [name for name, info in BACKENDS.items() if not info.calibrates])
def test_the_others_do_not_calibrate(name: str) -> None:
    """Given a backend that sets no scales from calls, then it says so in one line, with those that do."""
    if lacks := missing(name):
        pytest.skip(lacks)
    backend = load_backend(name)
    with pytest.raises(ConfigError) as caught:
        backend.calibration()
    says = "sets no scales of activations from calls; backends that do: quanto"
    assert str(caught.value) == f"{type(backend).__name__} {says}"

"""The registry: what it says of a backend without its library, and when that is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import msgspec
import pytest

from qregress.errors import ConfigError
from qregress.quantize import BACKENDS, load_backend, weight_types


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
    assert not any(info.calibrates for name, info in BACKENDS.items() if name != "quanto")

"""What optimum-quanto's kernels need before anything is called."""

from __future__ import annotations

import pytest
import torch

from qregress.quantize import extensions
from qregress.quantize.quanto import Quanto


@pytest.mark.parametrize(
    ("weights", "capability", "said"),
    [
        ("float8", (9, 0), "float8 weights need optimum-quanto's CUDA extension: no nvcc found; get it"),
        ("int4", (7, 5), "int4 weights need optimum-quanto's CUDA extension: no nvcc found; get it"),
    ],
)
def test_kernels_for_a_gpu_that_cannot_be_built(
    weights: str, capability: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no CUDA toolkit, then what it would build cannot run, and that is said before anything is called."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(extensions, "is_built", lambda _: False)
    monkeypatch.setattr(extensions, "lacking", lambda _: extensions.Tool("nvcc", None, "get it"))
    assert Quanto().prepare([weights], "cuda", pytest.fail) == said


def test_kernels_for_a_gpu_are_built_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an extension that is not built, then it is said and built, and what fails is said in one line."""
    lines: list[str] = []

    class Fails:
        @property
        def lib(self) -> None:
            raise RuntimeError("Error building extension 'quanto_cuda'\nnvcc: ...")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(extensions, "is_built", lambda _: False)
    monkeypatch.setattr(extensions, "lacking", lambda _: None)
    monkeypatch.setattr("qregress.quantize.quanto.get_extension", lambda name: {"quanto_cuda": Fails()}[name])
    lacks = Quanto().prepare(["float8"], "cuda:0", lines.append)
    assert lines == ["building optimum-quanto's CUDA extension, once (80 to 100 s)"]
    assert lacks is not None
    assert "its build failed" in lacks
    assert len(lacks.splitlines()) == 1

"""What optimum-quanto's kernels need before anything is called, and weights that are packed for one of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from optimum.quanto.tensor.weights.marlin.fp8.packed import get_scale_perms

from qregress.quantize import extensions
from qregress.quantize.packed import unpack_marlin
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


class MarlinF8QBytesTensor(SimpleNamespace):
    """A weight that is packed for a kernel, as far as it is asked; ``asked``: how often quanto has unpacked one."""

    asked = 0

    def weight_qbytes_tensor(self) -> Any:  # noqa: D102
        type(self).asked += 1
        return SimpleNamespace(_data=self.natural, _scale=self.scales)


@pytest.mark.parametrize("packed", ["so", "otherwise", "in other shapes"])
def test_packings_that_are_known_are_asked_for_once(packed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given weights of one shape, then quanto unpacks one; all of them where it has other values than ours."""
    monkeypatch.setattr(MarlinF8QBytesTensor, "asked", 0)
    backend = Quanto()
    for seed in range(3):
        data = torch.randint(-99, 99, (4, 256), dtype=torch.int32, generator=torch.Generator().manual_seed(seed))
        ours, scales = unpack_marlin(data).view(torch.float8_e4m3fn), torch.arange(64.0).reshape(-1, 1) + seed
        weight: Any = MarlinF8QBytesTensor(
            is_cuda=True,
            shape=(64, 64),
            dtype=torch.float16,
            qtype="float8",
            natural=ours if packed != "otherwise" else ours.flip(0),
            scales=scales,
            _data=SimpleNamespace(_data=data if packed != "in other shapes" else data[:, :-1]),
            _scale=scales.reshape(-1, 32)[:, get_scale_perms()].reshape(1, -1),
        )
        found = backend._converted(weight)
        assert (found is not None) is (packed == "so")
        if found is not None:
            assert torch.equal(found[0].view(torch.uint8), ours.view(torch.uint8))
            assert torch.equal(found[1], scales)
    assert MarlinF8QBytesTensor.asked == 1

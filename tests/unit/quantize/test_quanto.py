"""What optimum-quanto's kernels need before anything is called, and weights that are packed for one of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from optimum.quanto import qfloat8, qint4
from optimum.quanto.tensor.weights.marlin.fp8.packed import get_scale_perms
from optimum.quanto.tensor.weights.tinygemm import TinyGemmWeightQBitsTensor

from qregress.quantize import extensions, quanto
from qregress.quantize.packed import unpack_marlin
from qregress.quantize.quanto import Quanto
from tests.unit.quantize.test_packed import golden


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
    is_cuda, shape, dtype, qtype = True, torch.Size((64, 64)), torch.float16, qfloat8

    def weight_qbytes_tensor(self) -> Any:  # noqa: D102
        type(self).asked += 1
        return SimpleNamespace(_data=self.natural, _scale=self.scales)

    def __len__(self) -> int:
        return 64

    def numel(self) -> int:  # noqa: D102
        return 64 * 64


@pytest.mark.parametrize(
    ("packed", "asked"), [("so", 1), ("in another order", 4), ("in other shapes", 4), ("in other dimensions", 4)]
)
def test_packings_that_are_known_are_asked_for_once(packed: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given weights of one shape, then quanto unpacks one; each of them where it has other values than ours."""
    monkeypatch.setattr(MarlinF8QBytesTensor, "asked", 0)
    monkeypatch.setattr(quanto, "_SAME", {})
    monkeypatch.setattr(quanto, "_weight", lambda module: module.weight)
    monkeypatch.setattr(quanto, "_cuts", lambda _: None)
    for seed in range(3):
        data = torch.randint(-99, 99, (4, 256), dtype=torch.int32, generator=torch.Generator().manual_seed(seed)) & 0x3F
        ours, scales = unpack_marlin(data).view(torch.float8_e4m3fn), torch.arange(64.0).reshape(-1, 1) + seed
        natural = ours if packed != "in another order" else ours.flip(0)
        others = {"in other shapes": data[:, :-1], "in other dimensions": torch.tensor(0)}
        module: Any = SimpleNamespace(
            weight=MarlinF8QBytesTensor(
                natural=natural,
                scales=scales.as_strided((64, 1), (1, 64)),  # as quanto's are: it transposes them
                _data=SimpleNamespace(_data=others.get(packed, data)),
                _scale=scales.reshape(-1, 32)[:, get_scale_perms()].reshape(1, -1),
            )
        )
        assert torch.equal(Quanto().dequantize(module).values, natural.float() * scales)
    assert MarlinF8QBytesTensor.asked == asked


def test_memory_that_runs_out_says_nothing_of_a_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a device that is full, then that is the error, and nothing is remembered."""

    def convert(_: object) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(quanto, "_SAME", {})
    monkeypatch.setitem(quanto._CONVERSIONS, "MarlinF8QBytesTensor", convert)
    weight: Any = MarlinF8QBytesTensor(natural=torch.zeros(64, 64), scales=torch.ones(64, 1))
    with pytest.raises(torch.OutOfMemoryError):
        Quanto()._converted(weight)
    assert not quanto._SAME


def test_what_tinygemm_multiplies() -> None:
    """Given a tile that CUDA has packed, then codes, scales and shifts are those that quanto makes of it."""
    codes, tile = golden()
    scale_shift = torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight: Any = SimpleNamespace(
        qtype=qint4,
        _qtype=qint4,
        axis=0,
        _axis=0,
        _group_size=64,
        size=lambda: torch.Size((8, 128)),
        stride=lambda: (128, 1),
        _data=SimpleNamespace(_data=tile, unpack=lambda: codes.to(torch.uint8)),
        _scale_shift=scale_shift,
    )
    told = quanto._parts(TinyGemmWeightQBitsTensor.weight_qbits_tensor(weight))
    assert all(map(quanto._equal, quanto._from_tinygemm(weight), told))

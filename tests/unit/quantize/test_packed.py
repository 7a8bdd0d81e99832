"""Values out of the tiles that torch and optimum-quanto pack them into for CUDA."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from optimum.quanto.tensor.weights.marlin.fp8.packed import MarlinF8PackedTensor, get_scale_perms

from qregress.quantize.packed import unpack_marlin, unpack_marlin_scales, unpack_tiles

#: Drawn values, uint8 ``[8, 64]``, two in a byte, the even one in its upper half; and what
#: ``torch._convert_weight_to_int4pack(..., 8)`` made of them on an H100 with torch 2.11, int32 ``[1, 1, 32, 4]``.
CODES = (
    "tDZT54j/o9eFcnyAx0jvRKBKgODkf8N3K9IXvQfllxEsQUWMIWMDlRNxF5TcKwsy1ACps4PgRAK1WC3XyzxvECLl/1GiuHP3zTEBCPilOtox0O"
    "YWlc2nCxTJ7dUdbKVERyJlq76+MI2Bh195QH4tOVQLpFqBSAEYlP6cAw7XCMsS7IWCHzUC1YYncahNmsPz4pC0ZPwy0x8Sz7cn7QGA37UoDEA+"
    "jhq+bUb96pv7brR9KdgPjmJu/rnc5T98uDiJn9xKpBB2IQbaFn7BUgJmNUc6Jp7xtRkxsHOdZE4/VN5JAJUGOOyabPyysXdnpZjIG+30ZCfYV/"
    "+ZaZPtm9On8o8TIeeqj/u951enFWtYuBXi+dUYGve4X+AZUUqcgsgzp0zo4zF9Vc16/n460hsuuViIIqvLhOHB+gq9KsFwop++NJqzDw1kMxDn"
    "i2yyiJZBj1TztXbKv2kzJzmVnfg7yoW5DucNFvzWuvSler5gGsu2329CKkrkPBD2YJzYlSnoTECs2yV34T8gMi2iw1oXrlz7PqqbOwbzbrlR3J"
    "Ozmn2Eeonc/0HlrgNtP9A61pWxfbNL987gP1a7Z0tyAWWU2HhhSoUWoq7b566lecZjnZo0QTlRzJfFSiDYcRGXSGEvyNS3mt+MgyVkV7qQ41V4"
    "C7wmUa3l4Z7OIw3Mzz3gHbI="
)
PACKED = (
    "i8iEdeoCQHsi0RzDjcs0tfNH9oJ07fpSZCcxseA1AMil5zP8yJEwdwQBNbdKYkn93kh3QH4bcB2YOVwkCx0jB6L8Io2TEVHUtEjnAYUJFOS+o4"
    "VRzWzQybJ44udA34t+fzA/oa6udl02JQXfCgkUjPXQcagBTbZFijfbmRXAirMRSPLW/uHC0juW5b2He+3JPpJcpzkMIB+C9Oi2Yr0pjAjHJTHb"
    "izQHEG+s7W0+6IXY+lI4FtL097S+4Erwg++fGV0PKvRLF+A0b4l8IZl7uX0BbCazN1rz4KvAUt7WjTkkZxpuElmWTZmbpYFfqXRzCjxkUTnWHu"
    "Rgx8aH9v70Lahur7cenqLAOtcXKsXPuBqBVfOH/4F5KXQf3L6IcEgK8rqxh73FhYFeJ1ju4qsSLb4R11VRNPg6zrPTmsqSG/oLsf4geJNv0wi7"
    "1eor0aaAA47Uh8XypIcbb2kETZ+vVmmYSmu/M/O58BrOpeYmT5A7RjMca8mVpd7HZ7o06cKMJMJcMJWWvD74MPSjxwvtG3RTcKI/u7s5R9Yabe"
    "tmA1fqEhx9A5VuoeiTWV80lPtLPar74vp9OtytvewQX9dnghfOaGfDksRw3Ob4NOsyXNOmaiE+lE1xiI1VxFfi4BYNpJrq1cNnWRGLezeKlRzh"
    "3NiXtalFIaHxKQlasMq87S8="
)


def golden() -> tuple[torch.Tensor, torch.Tensor]:
    """The codes, ``[8, 128]``, and the same in a tile."""
    pairs = torch.frombuffer(bytearray(base64.b64decode(CODES)), dtype=torch.uint8).reshape(8, 64)
    tile = torch.frombuffer(bytearray(base64.b64decode(PACKED)), dtype=torch.int32).reshape(1, 1, 32, 4)
    return torch.stack((pairs >> 4, pairs & 15), dim=2).flatten(1).int(), tile


def test_a_tile_that_cuda_has_packed() -> None:
    """Given what a GPU has made of drawn values, then those come out of it."""
    codes, tile = golden()
    assert torch.equal(unpack_tiles(tile), codes)


def test_several_tiles() -> None:
    """Given tiles beside and below each other, then their values are too."""
    codes, tile = golden()
    turned = tile.flip(2)
    data = torch.cat([torch.cat([tile, turned], dim=1), torch.cat([turned, turned], dim=1)])
    found = unpack_tiles(data)
    assert found.shape == (16, 256)
    assert torch.equal(found[:8, :128], codes)
    assert torch.equal(found[:8, 128:], unpack_tiles(turned))
    assert torch.equal(found[8:, 128:], found[8:, :128])


@pytest.mark.parametrize(("outputs", "inputs"), [(256, 64), (512, 128), (1152, 1152), (1152, 256)])
def test_bytes_that_marlin_multiplies(outputs: int, inputs: int) -> None:
    """Given data in Marlin's order, then its bytes come out where optimum-quanto, which is slow at it, has them."""
    data = torch.randint(-(2**31), 2**31 - 1, (inputs // 16, outputs * 4), dtype=torch.int32)
    packed: Any = SimpleNamespace(_data=data)
    expected = MarlinF8PackedTensor.unpack(packed).contiguous().view(torch.uint8)
    assert torch.equal(unpack_marlin(data), expected)


def test_scales_that_marlin_multiplies_with() -> None:
    """Given scales as optimum-quanto orders them for Marlin, then they come out in the order of the outputs."""
    natural = torch.arange(128.0).reshape(-1, 1)
    packed = natural.reshape(-1, 32)[:, get_scale_perms()].reshape(1, -1)
    assert torch.equal(unpack_marlin_scales(packed), natural)

"""Checks that a setting happened, on records: what fails, and what it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qregress.judge.budgets import Limits
from qregress.judge.proof import coverage, disk, roundtrip
from qregress.record import Coverage, Record, Roundtrip
from tests.making import make_asked, make_memory, make_module, make_record


def test_original_weights_in_memory() -> None:
    """Given a manifest that is as asked, when original weights are still there, then it says how many bytes."""
    manifest = Coverage(modules=(make_module("a"), make_module("b")), asked="int8", kept=("b",), kept_bytes=2**20)
    found = coverage(make_record(coverage={"transformer": manifest}))
    assert found is not None
    assert found.verdict == "fail"
    assert "original weights of 1 of 2 modules are still in memory, 1.000 MiB beside the quantized ones: b" in found.why


def told(manifest: Coverage) -> str:
    """What is wrong with a manifest; empty where nothing is."""
    found = coverage(make_record(coverage={"transformer": manifest}))
    assert found is not None
    return found.why if found.verdict == "fail" else ""


def test_inputs_that_are_not_quantized_as_asked() -> None:
    """Given a type of activations that was asked for and is not found, then it fails, but not of what is not called."""
    right, wrong = (
        msgspec.structs.replace(make_module(name), activations=("int8", kind))
        for name, kind in (("a", "int8"), ("b", None))
    )
    assert told(Coverage(modules=(right,), asked="int8")) == ""
    assert told(Coverage(modules=(right, wrong), asked="int8")) == (
        "transformer: inputs of 1 of 2 modules are unquantized instead of int8: b"
    )
    assert told(Coverage(modules=(right, wrong), asked="int8", idle=("b",))) == ""


def test_projections_that_were_to_be_joined() -> None:
    """Given fusing, then each joined projection must be called, and none of those that it is made of."""
    modules = tuple(make_module(name) for name in ("a.to_q", "a.to_k", "a.to_qk"))
    joined: dict[str, tuple[str, ...]] = {"a.to_qk": ("a.to_q", "a.to_k")}
    manifest = Coverage(modules=modules, asked="int8", joined=joined, idle=("a.to_q", "a.to_k"))
    assert told(manifest) == ""
    assert told(msgspec.structs.replace(manifest, idle=("a.to_qk",))) == (
        "transformer: 1 joined projections are never called: a.to_qk; "
        "transformer: 2 projections that were joined are still called: a.to_q, a.to_k"
    )
    assert told(msgspec.structs.replace(manifest, joined={})) == (
        "transformer: fuse_qkv was asked for, but no projections were joined"
    )


def test_a_component_that_include_leaves_out() -> None:
    """Given include for one component and another that is to be quantized too, then a pattern for it is offered."""
    names = ("shared", "encoder.block.0.layer.0.SelfAttention.q", "encoder.final_layer_norm")
    manifest = Coverage(modules=tuple(make_module(name, None, None) for name in names), asked="float8")
    asked = make_asked({"include": ["transformer_blocks.*", "proj_out"]})
    found = coverage(make_record(coverage={"text_encoder": manifest}, asked=asked))
    assert found is not None
    assert found.verdict == "fail"
    assert found.why == (
        "text_encoder: float8 was asked for, but no pattern of include matches a module of it: transformer_blocks.*, "
        "proj_out; add one, such as 'encoder.*'"
    )
    assert told(manifest).endswith("none of its modules can be quantized so")


def test_a_pattern_that_only_holds_modules() -> None:
    """Given the name of a block, which no library takes for what is inside, then what was meant is offered."""
    manifest = Coverage(modules=(make_module("blocks.0.to_q"),), asked="int8", unmatched=("blocks.0",))
    found = coverage(make_record(coverage={"transformer": manifest}))
    assert found is not None
    assert "pattern 'blocks.0' matches no module of transformer; did you mean 'blocks.0.*'?" in found.why


def trip(*latents: float | None, dtype: str = "float16", equal: bool = False, **told: Any) -> Record:
    """A record that was saved and loaded."""
    saved = Roundtrip(
        disk_bytes=500, components={"transformer": 500}, equal=equal, latents=latents, dtype=dtype, **told
    )
    return make_record(roundtrip=saved)


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (trip(0.0, equal=True), "pass"),
        (trip(0.0, 0.0119, legal=(0.001, 0.002)), "pass"),
        (trip(0.0, 0.0121, legal=(0.001, 0.002)), "fail"),
        (trip(0.0004), "pass"),
        (trip(0.0005), "fail"),
        (trip(0.0005, legal=(None, 0.0)), "fail"),
        (trip(0.0038, dtype="bfloat16"), "pass"),
        (trip(0.0040, dtype="bfloat16"), "fail"),
        (trip(None, legal=(0.002,)), "fail"),
        (trip(0.0, equal=True, altered=("transformer.proj_out.bias",)), "fail"),
        (trip(0.0, equal=True, loaded={"transformer": Coverage(modules=(make_module("a"),), asked="int8")}), "fail"),
    ],
)
def test_images_after_a_round_trip(record: Record, verdict: str) -> None:
    """Given other latents of the same weights, then six times what another kernel does, or a rounding, is allowed."""
    found = roundtrip(record)
    assert found is not None
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("limit", "verdict"), [("0.5 KiB", "pass"), ("400 B", "fail"), ("0.6x", "pass"), ("0.4x", "fail")]
)
def test_bytes_on_disk(limit: str, verdict: str) -> None:
    """Given a budget for the files, absolute or relative to what the reference stores, then it is held."""
    found = disk(trip(0.0), make_record(memory=make_memory(1000)), Limits.parse({"disk": limit}).limits["disk"])
    assert found is not None
    assert found.verdict == verdict


def test_bytes_on_disk_without_a_reference() -> None:
    """Given a relative budget and no reference, then nothing is decided."""
    found = disk(trip(0.0), None, Limits.parse({"disk": "0.5x"}).limits["disk"])
    assert found is not None
    assert found.verdict == "void"


def test_a_library_that_cannot_save() -> None:
    """Given a component that cannot be saved, then the round trip fails with the library's words, the rest stands."""
    saved = Roundtrip(disk_bytes=0, components={}, equal=False, latents=(), dtype="float16", message="not serializable")
    record = make_record(roundtrip=saved)
    found = roundtrip(record)
    assert found is not None
    assert (found.verdict, found.why) == ("fail", "not serializable")
    assert disk(record, None, Limits.parse({"disk": "1 B"}).limits["disk"]) is None


def test_no_round_trip() -> None:
    """Given a setting that asks for none, then there is no check."""
    assert roundtrip(make_record()) is None
    assert disk(make_record(), None, Limits.parse({"disk": "1 B"}).limits["disk"]) is None

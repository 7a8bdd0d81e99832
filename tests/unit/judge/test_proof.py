"""Checks that a setting happened, on records: what fails, and what it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qregress.judge.budgets import Limits
from qregress.judge.proof import coverage, disk, fidelity, roundtrip
from qregress.record import Asked, Coverage, ModuleCoverage, Record, Roundtrip
from tests.making import make_layer, make_memory, make_record


def module(name: str, expected: str | None = "int8", found: str | None = "int8") -> ModuleCoverage:
    """One module with weights."""
    return ModuleCoverage(
        name=name, module="Linear", expected=expected, found=found, tensor="Q", dtype="float16", bytes=8
    )


def make_asked(setting: dict[str, Any]) -> Asked:
    """What was asked for, as far as the setting says it."""
    return Asked(source_sha256="0" * 64, call={}, setting=setting, workload={}, initial_sha256="1" * 64)


def record_of(*layers: Any, **components: Any) -> Record:
    """A record with these layers in the transformer, and those of other components."""
    return make_record(fidelity={"transformer": layers, **components})


def test_kernels_that_are_right() -> None:
    """Given layers within what rounding allows, then the nearest to it is named, with its share and its error."""
    found = fidelity(record_of(make_layer(), make_layer("proj_out", excess=0.73, error=4e-4)))
    assert found is not None
    assert (found.verdict, found.value, found.limit) == ("pass", 0.73, 1.0)
    assert "2 layers of 1 kinds and sizes; nearest to what rounding allows is transformer.proj_out" in found.why


def test_a_wrong_kernel_names_layers_and_kind() -> None:
    """Given four layers with one fault, then it is said once, with the structure, and the first three are named."""
    wrong = {"where": "everywhere", "kind": "constant over tokens", "error": 0.088, "excess": 150.0}
    layers = [make_layer(f"blocks.{n}.to_q", **wrong) for n in range(4)]
    found = fidelity(record_of(make_layer(), *layers))
    assert found is not None
    assert found.verdict == "fail"
    assert found.why == (
        "transformer: 4 of 5 layers (WeightQBytesTensor, float16, 128x256) multiply wrongly: constant over tokens; "
        "relative error 8.8e-02, 150 times what rounding allows everywhere: blocks.0.to_q, blocks.1.to_q, "
        "blocks.2.to_q and 1 more"
    )


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({128: 0.088, 512: 0.044, 4096: 0.0156}, "kind, shrinking with the number of inputs;"),
        ({128: 0.001, 512: 0.002, 2048: 0.004}, "kind, growing with the number of inputs;"),
        ({128: 0.010, 512: 0.010, 2048: 0.0101}, "kind;"),
        ({128: 0.088, 512: 0.044}, "kind;"),
    ],
)
def test_errors_that_go_with_the_number_of_inputs(errors: dict[int, float], words: str) -> None:
    """Given one fault in layers of several sizes, then a trend over at least three is said."""
    layers = [make_layer(where="in all", kind="kind", inputs=k, error=e, excess=9.0) for k, e in errors.items()]
    found = fidelity(record_of(*layers))
    assert found is not None
    assert f"multiply wrongly: {words}" in found.why


def test_one_fault_that_is_another_number_in_each_layer() -> None:
    """Given forty layers that are each off by a factor of their own, then it is one sentence, with their trend."""
    layers = [
        make_layer(
            f"b.{n}", where="in all", kind="proportional", detail=f"+{n}%", inputs=32 * n, error=n / 100, excess=9.0
        )
        for n in range(1, 41)
    ]
    found = fidelity(record_of(*layers))
    assert found is not None
    assert found.why.count("multiply wrongly") == 1
    told = "proportional, +1%, +2%, +3% and 37 more, growing with the number of inputs;"
    assert (
        f"40 of 40 layers (WeightQBytesTensor, float16, 32x256, 64x256, 96x256) multiply wrongly: {told}" in found.why
    )


def test_many_kinds_of_errors() -> None:
    """Given five, then those of most layers are told, and how many there are besides."""
    layers = [make_layer(where="in all", kind=f"kind {n}", excess=9.0) for n in range(5) for _ in range(n + 1)]
    found = fidelity(record_of(*layers))
    assert found is not None
    told = found.why.split("; ")
    assert [part.partition("wrongly: ")[2] for part in told if "wrongly" in part] == ["kind 4", "kind 3", "kind 2"]
    assert told[-1] == "and 2 more kinds of errors, in 3 layers"


def test_a_kernel_that_gives_no_number() -> None:
    """Given an error that is not finite, which a file holds as null, then it is beyond every limit."""
    found = fidelity(record_of(make_layer(error=None, excess=None, where="not finite", kind="not finite: 1 of 2")))
    assert found is not None
    assert (found.verdict, found.value) == ("fail", float("inf"))


def test_nothing_to_compare() -> None:
    """Given a record without quantized layers, as of a reference, then there is no check."""
    assert fidelity(make_record()) is None


def test_nothing_that_could_be_compared() -> None:
    """Given quantized layers of which none was compared, then that is said, and no pass."""
    found = fidelity(make_record(fidelity={"transformer": ()}))
    assert found is not None
    assert found.verdict == "void"
    assert (
        found.why
        == "no layer was compared; transformer: none of its quantized modules is a product that can be compared"
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"compile": True}, "; compared before compiling: nothing is known of compiled kernels"),
        ({"offload": "group"}, "; compared before offload = 'group' moves weights"),
        ({}, "(relative error 3.0e-04)"),
    ],
)
def test_kernels_before_what_is_run(setting: dict[str, Any], words: str) -> None:
    """Given a pipeline that is compiled or offloaded after its layers were compared, then a pass says so."""
    found = fidelity(msgspec.structs.replace(record_of(make_layer()), asked=make_asked(setting)))
    assert found is not None
    assert found.verdict == "pass"
    assert found.why.endswith(words)


def test_layers_that_are_never_called() -> None:
    """Given quantized layers that no call has used, then they are named and nothing passes; joined ones need not be."""
    manifest = Coverage(modules=(module("encoder.conv_in"), module("to_q")), asked="int8", idle=("encoder.conv_in",))
    record = make_record(fidelity={"vae": (make_layer(),)}, coverage={"vae": manifest})
    found = fidelity(record)
    assert found is not None
    assert found.verdict == "void"
    assert found.why.endswith("; vae: 1 quantized layers are never called and not compared: encoder.conv_in")
    joined = msgspec.structs.replace(manifest, joined={"conv": ("encoder.conv_in",)})
    found = fidelity(msgspec.structs.replace(record, coverage={"vae": joined}))
    assert found is not None
    assert found.verdict == "pass"
    found = fidelity(msgspec.structs.replace(record, fidelity={"vae": ()}))
    assert found is not None
    assert (found.verdict, found.why.partition(";")[0]) == ("void", "no layer was compared")


def test_inputs_that_say_nothing_of_a_kernel() -> None:
    """Given tokens that were left out, then how many is said; of a layer without any other, that it is not judged."""
    some_left = make_layer("proj_out", left_out=3)
    found = fidelity(record_of(make_layer(), some_left))
    assert found is not None
    assert found.verdict == "pass"
    assert "; 3 tokens of 1 layers left out, as their inputs are not finite" in found.why
    empty = {"tokens": 0, "left_out": 64, "error": None, "bound": None, "excess": None}
    found = fidelity(record_of(make_layer(), make_layer("proj_in", **empty)))
    assert found is not None
    assert (found.verdict, found.value) == ("void", 0.5)
    assert "transformer: 1 layers not compared, as all their inputs are not finite" in found.why
    assert found.why.endswith("squared: proj_in")


@pytest.mark.parametrize("fields", [{"bound": None}, {"excess": None}, {"excess": float("nan")}])
def test_a_bound_that_is_no_number(fields: dict[str, Any]) -> None:
    """Given a layer that nothing was held against, then it is no pass."""
    found = fidelity(record_of(make_layer(**fields)))
    assert found is not None
    assert found.verdict == "fail"


def test_original_weights_in_memory() -> None:
    """Given a manifest that is as asked, when original weights are still there, then it says how many bytes."""
    manifest = Coverage(modules=(module("a"), module("b")), asked="int8", kept=("b",), kept_bytes=2**20)
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
        msgspec.structs.replace(module(name), activations=("int8", kind)) for name, kind in (("a", "int8"), ("b", None))
    )
    assert told(Coverage(modules=(right,), asked="int8")) == ""
    assert told(Coverage(modules=(right, wrong), asked="int8")) == (
        "transformer: inputs of 1 of 2 modules are unquantized instead of int8: b"
    )
    assert told(Coverage(modules=(right, wrong), asked="int8", idle=("b",))) == ""


def test_projections_that_were_to_be_joined() -> None:
    """Given fusing, then each joined projection must be called, and none of those that it is made of."""
    modules = tuple(module(name) for name in ("a.to_q", "a.to_k", "a.to_qk"))
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
    manifest = Coverage(modules=tuple(module(name, None, None) for name in names), asked="float8")
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
    manifest = Coverage(modules=(module("blocks.0.to_q"),), asked="int8", unmatched=("blocks.0",))
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
        (trip(0.0, equal=True, loaded={"transformer": Coverage(modules=(module("a"),), asked="int8")}), "fail"),
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

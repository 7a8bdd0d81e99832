"""The check of kernels, on records: what fails, and what it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qregress.judge.kernels import fidelity
from qregress.judge.verdict import judge
from qregress.record import Coverage, Record
from tests.making import make_asked, make_layer, make_module, make_record


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
    """Given quantized layers that no call has used, then they are named beside a pass; without any other it is void."""
    manifest = Coverage(
        modules=(make_module("encoder.conv_in"), make_module("to_q")), asked="int8", idle=("encoder.conv_in",)
    )
    record = make_record(fidelity={"vae": (make_layer(),)}, coverage={"vae": manifest})
    found = fidelity(record)
    assert found is not None
    assert found.verdict == "pass"
    told = "vae: 1 quantized layers are never called and not compared: encoder.conv_in"
    assert found.why.endswith(f"; {told}")
    assert told in judge(record, None, {}).notes
    joined = msgspec.structs.replace(manifest, joined={"conv": ("encoder.conv_in",)})
    found = fidelity(msgspec.structs.replace(record, coverage={"vae": joined}))
    assert found is not None
    assert "never called" not in found.why
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

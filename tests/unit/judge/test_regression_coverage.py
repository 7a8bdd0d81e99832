"""A manifest against the accepted one, by lines and, of older baselines, by counts."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET

from qregress.judge.history import History
from qregress.judge.regression import coverage
from qregress.record import Coverage
from tests.unit.judge.making import INT8_CLASS, MARLIN, MISSING, accepted, full, manifest, reference, sure


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ([INT8_CLASS, INT8_CLASS], []),
        ([INT8_CLASS, MARLIN], ["tensors were {'WeightQBytesTensor': 2} and are {'WeightQBytesTensor': 1, 'Marl"]),
        ([INT8_CLASS, ("Parameter", None)], ["quantized were 2 and are 1", "tensors were {'WeightQBytesTensor': 2} a"]),
        ([INT8_CLASS], ["quantized were 2 and are 1", "eligible were 2 and are 1", "modules were 2 and are 1", "tens"]),
    ],
    ids=["same", "kernel", "fewer quantized", "fewer modules"],
)
def test_coverage_by_counts(now: list[tuple[str, str | None]], says: list[str]) -> None:
    """Given a baseline from before manifests had lines, then another tensor class or count fails, each in words."""
    known = accepted(full())
    assert known.entry is not None
    old = msgspec.structs.replace(known.entry.baseline, manifest=UNSET)
    before = History(msgspec.structs.replace(known.entry, baseline=old))
    found = sure(coverage(full(coverage=manifest(*now)), before))
    assert found.verdict == ("fail" if says else "pass")
    assert (found.value, found.limit, found.basis) == (float(len(says)), 0.0, "the accepted manifest")
    words = found.why.split("; ")
    if not says:
        assert words == ["modules and tensor classes as accepted"]
        return
    assert len(words) == len(says)
    assert all(word.startswith(f"transformer: {text}") for word, text in zip(words, says, strict=True))


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ([INT8_CLASS, INT8_CLASS], []),
        ([INT8_CLASS, MARLIN], ["int8, WeightQBytesTensor, float16 -> int8, MarlinInt8Tensor, float16: blocks.1"]),
        (
            [INT8_CLASS, ("Parameter", None)],
            ["int8, WeightQBytesTensor, float16 -> unquantized, Parameter, float16: b"],
        ),
        ([INT8_CLASS], ["int8, WeightQBytesTensor, float16 -> gone: blocks.1"]),
        ([INT8_CLASS] * 3, ["not there -> int8, WeightQBytesTensor, float16: blocks.2"]),
        ([MARLIN] * 2, ["int8, WeightQBytesTensor, float16 -> int8, MarlinInt8Tensor, float16: blocks.0, blocks.1"]),
    ],
    ids=["same", "kernel", "not quantized", "gone", "new", "two alike"],
)
def test_coverage(now: list[tuple[str, str | None]], says: list[str]) -> None:
    """Given a manifest, then each change of a module fails, as in a lock file, those that are alike in one sentence."""
    found = sure(coverage(full(coverage=manifest(*now)), accepted(full())))
    assert found.verdict == ("fail" if says else "pass")
    words = found.why.split("; ") if says else []
    assert len(words) == len(says)
    assert all(word.startswith(f"transformer: {text}") for word, text in zip(words, says, strict=True))


def test_coverage_of_other_bytes() -> None:
    """Given the same modules with other bytes, then that is no change of the manifest: memory has its own limit."""
    (name, part), *_ = manifest(INT8_CLASS).items()
    heavier = Coverage(modules=tuple(msgspec.structs.replace(m, bytes=9999) for m in part.modules), asked=part.asked)
    before = accepted(full(coverage={name: part}))
    assert sure(coverage(full(coverage={name: heavier}), before)).verdict == "pass"


def test_coverage_of_a_component_that_is_gone() -> None:
    """Given two components of which one is in no manifest any more, then it fails and that one is named, no other."""
    both = manifest(INT8_CLASS) | manifest(INT8_CLASS, component="text_encoder")
    before = accepted(full(coverage=both))
    assert sure(coverage(full(coverage=both), before)).verdict == "pass"
    found = sure(coverage(full(coverage=manifest(INT8_CLASS)), before))
    assert found.verdict == "fail"
    assert found.why == "text_encoder: int8, WeightQBytesTensor, float16 -> gone: blocks.0"
    assert "transformer" not in found.why
    assert sure(coverage(full(coverage=both), accepted(full(coverage=manifest(INT8_CLASS))))).verdict == "fail"


def test_a_reference_has_no_coverage() -> None:
    """Given a reference, whose weights nobody quantizes, then nothing is said of a manifest, accepted or not."""
    assert coverage(reference(), accepted(reference())) is None
    assert coverage(reference(), MISSING) is None

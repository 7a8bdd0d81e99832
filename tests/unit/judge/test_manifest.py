"""A coverage manifest in counts, and what of it is another one's."""

from __future__ import annotations

from typing import Any

from qregress.judge.manifest import changes, summarize
from qregress.record import Coverage, CoverageSummary, ModuleCoverage


def module(tensor: str = "Q", expected: str | None = "int8", found: str | None = "int8", size: int = 8) -> Any:
    """One module with weights."""
    return ModuleCoverage(
        name="a", module="Linear", expected=expected, found=found, tensor=tensor, dtype="float16", bytes=size
    )


def summary(**components: tuple[ModuleCoverage, ...]) -> CoverageSummary:
    """That of manifests which there are."""
    found = summarize({name: Coverage(modules=modules) for name, modules in components.items()})
    assert found is not None
    return found


PLAIN = module("Parameter", None, None)


def test_nothing_to_count() -> None:
    """Given no manifests, as of a reference, then there is no summary; of an empty component zeros."""
    assert summarize({}) is None
    assert summary(vae=()).components == {
        "vae": {"quantized": 0, "eligible": 0, "modules": 0, "bytes": 0, "tensors": {}}
    }


def test_counts() -> None:
    """Given two components, then each has its own counts, and the totals are over both."""
    missed = module("Parameter", found=None, size=16)
    found = summary(transformer=(module(), missed, PLAIN), text_encoder=(module("Other"),))
    assert (found.quantized, found.eligible) == (2, 3)
    assert found.components["transformer"] == {
        "quantized": 1,
        "eligible": 2,
        "modules": 3,
        "bytes": 32,
        "tensors": {"Q": 1, "Parameter": 2},
    }
    assert found.components["text_encoder"]["tensors"] == {"Other": 1}


def test_no_changes() -> None:
    """Given the same counts in another order, or with other bytes, then nothing has changed."""
    one = summary(a=(module("P"), module("Q", size=8)), b=(PLAIN,))
    assert changes(one, one) == []
    assert changes(one, summary(b=(PLAIN,), a=(module("Q", size=99), module("P")))) == []


def test_changes_are_said_component_by_component() -> None:
    """Given another kernel in one component and fewer quantized modules in another, then both are said, sorted."""
    before = summary(b=(module(), module()), a=(module(),))
    now = summary(b=(module(), module(found=None)), a=(module("Marlin"),))
    assert changes(before, now) == [
        "a: tensors were {'Q': 1} and are {'Marlin': 1}",
        "b: quantized were 2 and are 1",
    ]


def test_a_component_that_comes_or_goes() -> None:
    """Given a component in one of two summaries, then each of its counts is a change, in both directions."""
    less, more = summary(a=(module(),)), summary(a=(module(),), b=(module(),))
    gone = changes(more, less)
    assert gone == [
        "b: quantized were 1 and are None",
        "b: eligible were 1 and are None",
        "b: modules were 1 and are None",
        "b: tensors were {'Q': 1} and are None",
    ]
    assert [words.replace("None", "x") for words in changes(less, more)] == [
        "b: quantized were x and are 1",
        "b: eligible were x and are 1",
        "b: modules were x and are 1",
        "b: tensors were x and are {'Q': 1}",
    ]

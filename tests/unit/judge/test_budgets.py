"""Limits: what a table says, and which table a cell obeys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qregress.judge.budgets import _PLAIN, Budgets, Limit, Limits

CELLS = ["pixart/int8/bs1", "pixart/int8+te/bs1", "pixart/fp8/bs4", "sd3/int8/bs1"]
VALUES = st.floats(min_value=0, max_value=100)


def budgets(default: dict[str, Any], **scoped: dict[str, Any]) -> Budgets:
    """Budgets from tables, as the configuration makes them."""
    return Budgets(Limits.parse(default), {pattern: Limits.parse(table) for pattern, table in scoped.items()})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lpips", 0.05, Limit(0.05, relative=False, basis="budget")),
        ("motion", 0.2, Limit(0.2, relative=False, basis="budget")),
        ("motion_worst", 0.2, Limit(0.2, relative=False, basis="budget")),
        ("clip_drop_worst", 0, Limit(0.0, relative=False, basis="budget")),
        ("memory", "5.5 GiB", Limit(5905580032.0, relative=False, basis="budget 5.5 GiB")),
        ("memory_peak", "0.50x", Limit(0.5, relative=True, basis="budget 0.50x")),
        ("latency", "1600 ms", Limit(1.6, relative=False, basis="budget 1600 ms")),
        ("latency", "1.60x", Limit(1.6, relative=True, basis="budget 1.60x")),
    ],
)
def test_parse(name: str, value: object, expected: Limit) -> None:
    """Given a budget, then its limit is absolute or relative, and says where it came from."""
    assert Limits.parse({name: value}).limits == {name: expected}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lpips", "0.05"),
        ("lpips", float("nan")),
        ("lpips", float("inf")),
        ("clip_drop", -0.1),
        ("latents", True),
        ("motion", "0.2x"),
        ("memory", 5),
        ("memory", "5.5 s"),
        ("latency", "1.6 GiB"),
        ("latency", "0x"),
        ("memory_peak", ["0.5x"]),
    ],
)
def test_wrong_value(name: str, value: object) -> None:
    """Given a value that is no limit of that quantity, then the error is one line that names the key."""
    with pytest.raises(ValueError, match=rf"\A{name}: expected [^\n]*\Z"):
        Limits.parse({name: value})


@pytest.mark.parametrize(
    ("pattern", "cells"),
    [
        ("pixart", CELLS[:3]),
        ("pixart/int8", CELLS[:1]),
        ("pixart/int8/bs1", CELLS[:1]),
        ("*/int8*", [CELLS[0], CELLS[1], CELLS[3]]),
        ("*/*/bs4", CELLS[2:3]),
        ("*", CELLS),
        ("int8", []),
        ("pix", []),
    ],
)
def test_patterns(pattern: str, cells: list[str]) -> None:
    """Given a pattern, then it means the cells that it names, and all below a pipeline or a setting."""
    assert [cell for cell in CELLS if Budgets.matches(pattern, cell)] == cells


@given(VALUES, VALUES, VALUES, st.permutations(["pixart", "pixart/int8", "*/int8/*"]))
def test_narrower_wins(wide: float, middle: float, narrow: float, order: list[str]) -> None:
    """Given tables in any order, then the one whose pattern has more letters wins, key by key."""
    values = {"pixart": wide, "pixart/int8": narrow, "*/int8/*": middle}
    tables = {pattern: {"lpips": values[pattern]} for pattern in order}
    tables["pixart"]["clip_drop"] = wide
    found = budgets({"lpips": 100, "latents": 3}, **tables).of("pixart/int8/bs1")
    assert {name: limit.value for name, limit in found.items()} == {"lpips": narrow, "clip_drop": wide, "latents": 3}
    assert found["lpips"].basis == 'budget "pixart/int8"'
    assert found["latents"].basis == "budget"


def test_of_two_as_narrow_the_later_wins() -> None:
    """Given two patterns of the same length, then the later one wins."""
    tables: dict[str, dict[str, Any]] = {"pixart/*": {"lpips": 1}, "*art/int": {"lpips": 9}, "*/int8*": {"lpips": 2}}
    assert budgets({}, **tables).of("pixart/int8/bs1")["lpips"].value == 1
    tables = {"*/int8": {"lpips": 1}, "/int8*": {"lpips": 9}, "*int8/*": {"lpips": 2}}
    assert budgets({}, **tables).of("pixart/int8/bs1")["lpips"].value == 2


def test_a_device_belongs_to_its_table() -> None:
    """Given two tables with a device each, then each limit keeps its own table's, and none has another's."""
    found = budgets(
        {"memory": "5 GiB", "memory_peak": "9 GiB"},
        **{"pixart": {"memory": "4 GiB", "device": "cuda-*"}, "pixart/int8": {"latency": "1 s", "device": "cpu-*"}},
    ).of("pixart/int8/bs1")
    assert {name: limit.device for name, limit in found.items()} == {
        "memory": "cuda-*",
        "memory_peak": None,
        "latency": "cpu-*",
    }


@given(st.dictionaries(st.sampled_from(_PLAIN), VALUES), st.sampled_from(CELLS))
def test_default_is_for_all(table: dict[str, float], cell: str) -> None:
    """Given budgets without patterns, then every cell has them, and no others."""
    found = budgets(dict(table)).of(cell)
    assert {name: limit.value for name, limit in found.items()} == table

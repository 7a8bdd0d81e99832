"""Quantities as a configuration writes them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qregress import units
from qregress.errors import QregressError, nearest


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1 B", 1), ("2KiB", 2048), ("1.5 MiB", 1572864), ("5.5 GiB", 5905580032), ("1 TiB", 1099511627776)],
)
def test_bytes(text: str, expected: int) -> None:
    """Given a number and a binary unit, then it is so many bytes."""
    assert units.parse_bytes(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("250 ms", 0.25), ("1.6 s", 1.6), ("15 min", 900.0), ("2h", 7200.0)])
def test_seconds(text: str, expected: float) -> None:
    """Given a number and a unit of time, then it is so many seconds."""
    assert units.parse_seconds(text) == expected


@given(st.integers(min_value=1, max_value=2**40))
def test_whole_bytes_come_back(value: int) -> None:
    """Given any whole number of a unit, when it is written and parsed, then nothing is lost."""
    assert units.parse_bytes(f"{value} B") == value
    assert units.parse_bytes(f"{value} KiB") == value * 1024


@given(st.integers(min_value=1, max_value=10**6))
def test_thousandths_of_a_second_come_back(value: int) -> None:
    """Given milliseconds, when they are shown in seconds and parsed, then they are the same."""
    assert units.parse_seconds(units.format_seconds(value / 1000)) == value / 1000


@given(st.integers(min_value=2**20, max_value=2**44))
def test_shown_bytes_are_near(value: int) -> None:
    """Given a size of a MiB or more, when it is shown and parsed, then half of its last decimal is lost at most."""
    shown = units.format_bytes(value)
    last = {"MiB": 2**20, "GiB": 2**30}[shown.split()[1]] / 1000
    assert abs(units.parse_bytes(shown) - value) <= last / 2 + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5905580032, "5.500 GiB"), (107374183, "0.100 GiB"), (107374182, "102.400 MiB"), (1048576, "1.000 MiB")],
)
def test_bytes_are_shown_in_the_unit_that_shows_them(value: int, expected: str) -> None:
    """Given a tenth of a GiB or more, then it is shown in GiB; less would vanish in the decimals."""
    assert units.format_bytes(value) == expected


@pytest.mark.parametrize("text", ["5.5 GB", "5.5", "GiB", "-1 GiB", "0 B", "1e3 B", "", "9" * 400 + " GiB", "1 GiB\n2"])
def test_wrong_bytes(text: str) -> None:
    """Given no size, then the error is one line that shows an example or what is wrong."""
    with pytest.raises(ValueError, match=r"\Aexpected [^\n]*, found [^\n]*\Z"):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.000 s"), (8.64e-6, "8.6 µs"), (5e-4, "0.001 s"), (1.2, "1.200 s")]
)
def test_seconds_for_people(value: float, shown: str) -> None:
    """Given what a kernel's launch takes, then it is not shown as nothing."""
    assert units.format_seconds(value) == shown


def test_factor() -> None:
    """Given a factor, then it is told from a quantity, and zero is none."""
    assert units.is_factor("0.50x")
    assert not units.is_factor("0.50 GiB")
    assert units.parse_factor("0.50x") == 0.5
    with pytest.raises(ValueError, match="expected more than zero"):
        units.parse_factor("0x")


@given(st.text())
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    """Given any text at all, then it is a size above zero or a ``ValueError``, and nothing else is raised."""
    with contextlib.suppress(ValueError):
        assert units.parse_bytes(text) > 0


@given(st.text(), st.lists(st.text(), max_size=3))
def test_an_error_is_one_line(text: str, names: list[str]) -> None:
    """Given names with line breaks in them, when they stand in an error, then it is one line all the same."""
    shown = str(QregressError(f"found {text}; {nearest(text, names)}"))
    assert len(shown.splitlines()) == 1


def test_nearest_name() -> None:
    """Given a misspelt name, then the near one is named before all that are allowed."""
    assert nearest("flaot8", ["int8", "float8"]) == "did you mean 'float8'? allowed: float8, int8"
    assert nearest("zzz", ["int8"]) == "allowed: int8"
    assert nearest("zzz", []) == "allowed: nothing"

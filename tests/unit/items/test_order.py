"""Groups stay together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qregress.items.order import together


def group_of(item: str) -> str | None:
    """The letter before a digit, as in ``a1``; ``-1`` has no group."""
    return item[0] if item[0] != "-" else None


def test_groups_come_to_their_first_item() -> None:
    """Given two groups among others, then each follows its first item, and the rest keeps its order."""
    items = ["-1", "b2", "-2", "a1", "b1", "-3", "a2"]
    assert together(items, group_of) == ["-1", "b2", "b1", "-2", "a1", "a2", "-3"]


@given(st.lists(st.tuples(st.sampled_from("ab-"), st.integers(0, 99)), unique=True))
def test_any_order(pairs: list[tuple[str, int]]) -> None:
    """Given any order, then nothing is lost, each group and the rest keep their order, and groups are not torn."""
    items = [f"{name}{number}" for name, number in pairs]
    ordered = together(items, group_of)
    for name in ("a", "b", None):
        assert [item for item in ordered if group_of(item) == name] == [i for i in items if group_of(i) == name]
    for name in "ab":
        places = [place for place, item in enumerate(ordered) if item.startswith(name)]
        assert places == list(range(places[0], places[0] + len(places))) if places else True

"""What libraries raise, in a line."""

from __future__ import annotations

from qregress.errors import one_line, typed_line


def test_one_line() -> None:
    """Given a text over lines, then it is on one, cut where asked for, with the name of its class or without."""
    error = ValueError("a\n  long\ttext")
    assert (one_line(error), one_line(error, 6)) == ("a long text", "a long")
    assert (typed_line(error), typed_line(error, 6)) == ("ValueError: a long text", "ValueError: a long")
    assert len(one_line(ValueError("x" * 1000))) == 300
    assert len(one_line(ValueError("x" * 1000), None)) == 1000

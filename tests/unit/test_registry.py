"""The decorator: what it keeps, and how it is forgotten."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import qregress
from qregress import registry
from tests.unit.modules import import_text


@pytest.fixture(autouse=True)
def _own_registry() -> object:
    """What a test registers is forgotten with it."""
    with registry.scope():
        yield


def test_the_function_stays_what_it_is() -> None:
    """Given a function, when it is registered, then it is returned, and was not called."""

    def make(*_: object) -> None:
        raise AssertionError

    assert qregress.pipeline("mine")(make) is make
    assert registry.registrations_of(make) == registry.registered()[-1:]


def test_the_file_that_registers_again(tmp_path: Path) -> None:
    """Given a helper called by a module, then the module is what must be imported again, not the helper's."""
    import_text(tmp_path, "a_helper", "import qregress\ndef add(name):\n    qregress.pipeline(name)(lambda d, w: None)")
    module = import_text(tmp_path, "a_module", "import a_helper\n\na_helper.add('mine')\n")
    found = registry.registered()[-1]
    assert (found.module, found.file, found.line) == ("a_module", module.__file__, 3)


def test_a_scope_ends(tmp_path: Path) -> None:
    """Given a scope, then what was there before it stays, and what came in it goes."""
    qregress.pipeline("before")(lambda *_: None)
    with registry.scope():
        import_text(tmp_path, "within", "import qregress\n@qregress.pipeline('within')\ndef f(d, w): ...")
        assert [found.name for found in registry.registered()[-2:]] == ["before", "within"]
    assert registry.registered()[-1].name == "before"
    again = registry.registrations_of(sys.modules["within"].f)
    registry.add(again)
    registry.add(again)
    assert [found.name for found in registry.registered()[-2:]] == ["before", "within"]

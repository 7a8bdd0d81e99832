"""A repository that has nothing to do with qregress hardly notices that it is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "msgspec", "rich", "diffusers", "qregress.items.session", "qregress.config")

_RUN = f"""
import sys, pytest
code = pytest.main(["-q", "-p", "no:xdist"])
print(code.value, "qregress.plugin" in sys.modules, [name for name in {HEAVY} if name in sys.modules])
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where a test's files are."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


@pytest.fixture(autouse=True)
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ordinary test."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile("def test_one():\n    pass\n")


def test_imports_nothing() -> None:
    """Given an ordinary test, when pytest runs with the plugin installed, then only its hooks are loaded."""
    assert python("-c", _RUN).stdout.splitlines()[-1] == "0 True []"


def test_time() -> None:
    """Given an ordinary repository, then loading the plugin takes at most 30 ms of what pytest takes anyway.

    The interpreter's own clock over the plugin's imports, least of three, as other work on the machine only adds time.
    Measured on two noisy cores: 3 to 9 ms. Its hooks add a dictionary look-up and one ``Path.exists``.
    """
    lines = [python("-X", "importtime", "-c", "import pytest, qregress.plugin").stderr for _ in range(3)]
    assert min(map(microseconds, lines)) <= 30_000


def microseconds(report: str) -> int:
    """Sum of the own time of every module that is imported for the plugin, pytest's not counted."""
    rows = [line.removeprefix("import time:").split("|") for line in report.splitlines()[1:]]
    named = [(int(own), int(total), name) for own, total, name in rows]
    start = max(index for index, (_, _, name) in enumerate(named) if name == " pytest")
    found = named[start + 1 :]
    assert " qregress.plugin" in [name for _, _, name in found]
    return sum(own for own, _, _ in found)


def test_says_nothing(pytester: pytest.Pytester) -> None:
    """Given an ordinary repository, then nothing of qregress is printed or written."""
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=1)
    assert "= qregress =" not in result.stdout.str()
    assert not (pytester.path / ".qregress").exists()

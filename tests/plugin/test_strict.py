"""Strict settings, warnings as errors, and plugins of pytest's own that are switched off."""

from __future__ import annotations

import pytest

from tests.plugin.project import Project

_STRICT = "[tool.pytest]\nstrict = true\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--strict-markers",),
        ("--strict-config",),
        ("-W", "error"),
        ("-p", "no:cacheprovider"),
        ("-p", "no:logging", "-p", "no:junitxml"),
    ],
    ids=" ".join,
)
def test_option(options: tuple[str, ...], project: Project, spread: tuple[str, ...]) -> None:
    """Given an option that forbids or takes away, then cells run as ever, without a warning."""
    result = project.run_apart(*options, *spread)
    result.assert_outcomes(passed=3, warnings=0)
    assert project.results().complete


def test_without_xdist(project: Project) -> None:
    """Given no xdist, then none of its hooks is missed."""
    project.run_apart("-p", "no:xdist", "--strict-config").assert_outcomes(passed=3)


def test_strict(project: Project, spread: tuple[str, ...]) -> None:
    """Given pytest's ``strict``, which turns all its strict settings on, then cells run as ever."""
    (project.path / "pyproject.toml").write_text(_STRICT)
    project.run_apart("-W", "error", *spread).assert_outcomes(passed=3)


def test_strict_is_obeyed_here(project: Project) -> None:
    """Given the same setting and a mark that nobody knows, then pytest does refuse it: the test above can fail."""
    (project.path / "pyproject.toml").write_text(_STRICT)
    project.pytester.makepyfile(test_mark="import pytest\n@pytest.mark.nobody\ndef test_one(): pass")
    project.run_apart().assert_outcomes(errors=1)

"""Plugins that shuffle: cells of one pipeline stay together, and all is green in any order."""

from __future__ import annotations

import pytest

from tests.making import CONFIG
from tests.plugin.project import ALPHA, Project

_SEEDS = [1, 2, 3]
_ORDINARY = "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_ordinary(n): pass"
#: Run by nothing but order.py's own hook later: what the shuffling plugin made of the items.
_REPORT = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    print("\\n" + " ".join(item.name for item in items))
"""


def torn(produced: list[str]) -> list[str]:
    """Pipelines in the order in which they were begun, named again where they were left and taken up again."""
    pipelines = [cell.partition("/")[0] for cell in produced]
    return [name for index, name in enumerate(pipelines) if index == 0 or pipelines[index - 1] != name]


@pytest.fixture
def mixed(project: Project) -> Project:
    """Two pipelines with three cells each, and six ordinary tests."""
    (project.path / "qregress.toml").write_text(ALPHA + CONFIG)
    project.pytester.makepyfile(test_ordinary=_ORDINARY)
    return project


@pytest.mark.parametrize("seed", _SEEDS)
def test_random_order(seed: int, mixed: Project, spread: tuple[str, ...]) -> None:
    """Given pytest-random-order over all tests, then all pass, and no pipeline is taken up twice by one process."""
    options = ("--random-order-bucket=global", f"--random-order-seed={seed}")
    mixed.run_apart(*options, *spread).assert_outcomes(passed=12)
    produced = mixed.produced()
    assert len(produced) == 6
    if spread != ("-n2",):  # two processes take turns at the device
        assert sorted(torn(produced)) == ["alpha", "pixart"]
    assert all(len(processes) == 1 for processes in mixed.processes().values())


def test_the_plugin_does_shuffle(mixed: Project) -> None:
    """Given a shuffle that tears pipelines apart, then only what belongs together was moved."""
    options = ("--random-order-bucket=global", "--random-order-seed=1", "--co", "-q", "-p", "no:xdist")
    lines = [line for line in mixed.run_apart(*options).outlines if "::" in line]
    mixed.add_conftest(_REPORT)
    shuffled = mixed.run_apart(*options).outlines
    before = next(line.split() for line in shuffled if line.startswith("test_"))
    cells = [name for name in before if "test_quantized" in name]
    assert len(torn([name.partition("[")[2] for name in cells])) > 2
    after = [line.partition("::")[2] for line in lines]
    assert [name for name in after if "test_ordinary" in name] == [name for name in before if "test_ordinary" in name]
    for pipeline in ("alpha", "pixart"):
        assert [name for name in after if pipeline in name] == [name for name in before if pipeline in name]

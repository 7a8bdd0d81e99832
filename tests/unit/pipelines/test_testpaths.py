"""Which conftest.py verbs read: those that pytest would."""

from __future__ import annotations

from pathlib import Path

import pytest

from qregress.pipelines import factories, testpaths

_CONFTEST = """import qregress

@qregress.pipeline("{0}")
def {0}(dtype, device):
    ...
"""
_FILES = {
    "pytest.ini": "[pytest]\ntestpaths = tests/gpu elsewhere\n",
    "tox.ini": "[tox]\n[pytest]\ntestpaths =\n    tests/g*\n",
    "setup.cfg": "[tool:pytest]\ntestpaths = tests/gpu\n",
    "pyproject.toml": '[tool.pytest.ini_options]\ntestpaths = ["tests/gpu"]\n',
}


@pytest.mark.parametrize("name", _FILES)
def test_a_factory_in_testpaths(name: str, tmp_path: Path) -> None:
    """Given factories in a folder that pytest's configuration names, then a verb knows them, and no others."""
    for folder in ("gpu", "cpu"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / "conftest.py").write_text(_CONFTEST.format(f"from_{folder}"))
    assert factories.of_folder(tmp_path) == ()
    (tmp_path / name).write_text(_FILES[name])
    assert [pipeline.name for pipeline in factories.of_folder(tmp_path)] == ["from_gpu"]


def test_folders_on_the_way(tmp_path: Path) -> None:
    """Given a file deeper down, then the folders on the way to it are read before its own, each once."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "test_it.py").write_text("")
    (tmp_path / "a" / "conftest.py").write_text("")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = a/b/test_it.py a\n")
    assert testpaths.folders(tmp_path) == (tmp_path, tmp_path / "a", tmp_path / "a" / "b")


@pytest.mark.parametrize(
    "text", ["[pytest\n", "[pytest]\ntestpaths = /somewhere\n", "[pytest]\n"], ids=["broken", "elsewhere", "none"]
)
def test_nothing_more_than_the_folder(text: str, tmp_path: Path) -> None:
    """Given a file that cannot be read, which pytest tells of, a folder elsewhere, or none, then it is this one."""
    (tmp_path / "pytest.ini").write_text(text)
    assert testpaths.folders(tmp_path) == (tmp_path,)

"""What is wrong with a configuration is one line: file, key, what was found, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from qregress import config
from qregress.errors import ConfigError
from tests.making import write_project
from tests.unit.bad_configs import PARAMETERS, Mistake


@pytest.mark.parametrize("mistake", PARAMETERS)
def test_mistake(mistake: Mistake, tmp_path: Path) -> None:
    """Given a configuration with one mistake, then one line names the file, the key and the mistake."""
    path = write_project(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("\n \n")
    mistake.write(path)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {mistake.key}")
    assert mistake.says in message
    assert len(message.splitlines()) == 1


def test_no_pipeline(tmp_path: Path) -> None:
    """Given an empty file, then the error shows what to write."""
    path = write_project(tmp_path, "")
    with pytest.raises(ConfigError, match=r"pipelines: no pipeline; name at least one, as in \[pipelines"):
        config.load(path)


def test_budgets_that_are_no_table(tmp_path: Path) -> None:
    """Given budgets as a number, then the error says that they are a table."""
    path = write_project(tmp_path, 'budgets = 1\n[pipelines.pixart]\nsource = "path:pipeline"')
    with pytest.raises(ConfigError, match="budgets: expected a table, found int"):
        config.load(path)


@pytest.mark.parametrize(("name", "says"), [("nowhere.toml", "no such configuration file"), (".", "Is a directory")])
def test_no_file(tmp_path: Path, name: str, says: str) -> None:
    """Given a path without a configuration, then the error names it."""
    with pytest.raises(ConfigError, match=says):
        config.load(tmp_path / name)


def test_not_utf8(tmp_path: Path) -> None:
    """Given a file of another encoding, then it is not valid TOML."""
    path = tmp_path / "qregress.toml"
    path.write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.load(path)

"""A project with finished runs, in which verbs run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qregress import cli
from tests.store_making import write_matrix, write_matrix_run

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of a reference and two settings; ``first``, an equal run and one that is worse, ``later``."""
    write_matrix(tmp_path, 2)
    for name, step in (("first", 0), ("equal", 0), ("later", 40)):
        write_matrix_run(tmp_path / name, 2, step=step)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run ``qregress``: exit code, standard output, standard error."""

    def act(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return act

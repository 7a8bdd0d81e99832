"""A project to run pytest in: a configuration, a test that takes cells, and a producer that needs no model."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

import qregress.items.session  # noqa: F401 - imported once here, not once in every run in this process
from qregress.record import Run, read
from tests.making import CONFIG, write_project

_CONFTEST = """
import fake_producer

def pytest_configure(config):
    config.pluginmanager.register(fake_producer.Producers(), "qregress-producer")
"""
_TEST = """
def test_quantized(qregress_cell):
    qregress_cell.check()
"""


#: Plugins of this repository's own tests, which take half of the time of a run without them.
_UNUSED = "-p no:hypothesispytest -p no:anyio"
#: A second pipeline, before the configuration's own.
ALPHA = '[pipelines.alpha]\nsource = "path:pipeline"\ndevices = ["cpu"]\n'


class Project:
    """A folder with pytester in it."""

    def __init__(self, pytester: pytest.Pytester, environment: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self._environment = environment
        for name in ("PYTEST_ADDOPTS", "CI"):
            environment.delenv(name, raising=False)
        self._lock_apart()
        write_project(self.path, CONFIG)
        self.behave({})
        shutil.copy(Path(__file__).with_name("fake_producer.py"), self.path)
        pytester.makeconftest(_CONFTEST)
        pytester.makepyfile(test_matrix=_TEST)

    def _lock_apart(self) -> None:
        """Do not wait for whoever else measures on this machine: nothing here is measured."""
        folder = self.path / "tmp"
        folder.mkdir()
        self._environment.setenv("TMPDIR", str(folder))
        self._environment.setattr(tempfile, "tempdir", str(folder))

    def add_conftest(self, text: str) -> None:
        """More of it."""
        path = self.path / "conftest.py"
        path.write_text(path.read_text() + text)

    def behave(self, cells: dict[str, dict[str, Any]]) -> None:
        """What becomes of cells, by id; the others pass."""
        (self.path / "behaviour.json").write_text(json.dumps(cells))

    def configure(self, *changes: tuple[str, str]) -> None:
        """Replace texts in the configuration, each of which must be there."""
        text = (self.path / "qregress.toml").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.path / "qregress.toml").write_text(text)

    def keep_baselines(self) -> None:
        """Compare cells with baselines, which the other tests' configuration does without."""
        self.configure(('[baselines]\nstore = "none"\n', ""))

    def stored(self, folder: str = "baselines") -> dict[str, bytes]:
        """All files of a store, by path inside it."""
        root = self.path / folder
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    def baselines(self, folder: str = "baselines") -> list[str]:
        """The cells that have a baseline in a store, sorted."""
        return sorted(
            name.split("/", 1)[1].removesuffix("/baseline.json")
            for name in self.stored(folder)
            if "/baseline.json" in name
        )

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in this process: quick, for all that ends on its own."""
        self._environment.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        return self.pytester.runpytest_inprocess("-p", "qregress.plugin", *arguments)

    def run_apart(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in a process of its own, as a user does."""
        self._environment.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
        self._environment.setenv("PYTEST_ADDOPTS", _UNUSED)
        return self.pytester.runpytest_subprocess(*arguments)

    def run_as(self, way: str, *arguments: str) -> pytest.RunResult:
        """Run pytest plainly, or with the option of xdist that ``way`` is."""
        return self.run_apart(way, *arguments) if way else self.run(*arguments)

    def produced(self, kind: str = "produced") -> list[str]:
        """The cells that were produced, in their order; or whose noise floor was measured (``"noise"``)."""
        path = self.path / f"{kind}.txt"
        return path.read_text().splitlines() if path.exists() else []

    def processes(self) -> dict[str, set[str]]:
        """Pipeline to the ids of the processes in which its cells were produced."""
        found: dict[str, set[str]] = {}
        for line in (self.path / "processes.txt").read_text().splitlines():
            process, cell = line.split()
            found.setdefault(cell.partition("/")[0], set()).add(process)
        return found

    def results(self, out: str = ".qregress/latest") -> Run:
        """``run.json``, through the codec."""
        return read(self.path / out / "run.json", Run)

    def raw_results(self, out: str = ".qregress/latest") -> Any:
        """``run.json`` as another program reads it."""
        return msgspec.json.decode((self.path / out / "run.json").read_bytes())


#: Plain, and with xdist: in one process of its own and in two.
WAYS = pytest.mark.parametrize("way", [pytest.param("", id="plain"), "-n0", "-n2"])


def usage_error(result: pytest.RunResult) -> str:
    """The only line on stderr of a run that ended with exit code 4, without its ``ERROR: ``."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.errlines if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("ERROR: ")
    return lines[0].removeprefix("ERROR: ")

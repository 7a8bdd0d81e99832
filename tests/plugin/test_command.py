"""``qregress run``, which is pytest over one packaged test file: what it prints, writes and returns."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from qregress import cli
from tests.making import CONFIG, INT8, INT8_TE, REFERENCE
from tests.plugin import fake_producer
from tests.plugin.project import Project


class Ended(NamedTuple):
    """What a command left on the screen."""

    code: int
    out: str
    err: str


class Command:
    """``qregress run`` in a project, in this process."""

    def __init__(self, project: Project, capfd: pytest.CaptureFixture[str]) -> None:
        self.project = project
        self._capfd = capfd

    def __call__(self, *arguments: str) -> Ended:
        """Run it."""
        self._capfd.readouterr()
        code = cli.main(["run", *arguments])
        return Ended(code, *self._capfd.readouterr())


@pytest.fixture
def command(project: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The project of the other tests, without a test file of its own."""
    monkeypatch.setattr("qregress.items.session.Worker", fake_producer.FakeProducer)
    monkeypatch.setattr(fake_producer, "HERE", project.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        monkeypatch.setenv(name, "")  # so that what the command changes is put back
    (project.path / "test_matrix.py").unlink()
    (project.path / "conftest.py").unlink()
    return Command(project, capfd)


def test_green(command: Command) -> None:
    """Given cells within their budgets, then progress goes to stderr, and table, counts and path to stdout."""
    ended = command()
    assert ended.code == 0
    assert f"[2/3] {INT8}: pass" in ended.err
    assert ended.err.startswith(f"{command.project.path / 'qregress.toml'}: 3 cells on cpu\n")
    lines = ended.out.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["cell", REFERENCE, INT8, INT8_TE, "2", "3", "results:"]
    assert lines[-1] == f"results: {command.project.path / '.qregress' / 'latest' / 'run.json'}"
    assert command.project.results().complete


def test_leaves_nothing_but_results(command: Command) -> None:
    """Given a run, then the folder has the results and nothing of pytest's."""
    before = {path.name for path in command.project.path.iterdir()}
    command()
    made = {path.name for path in command.project.path.iterdir()} - before
    assert made == {".qregress", "processes.txt", "produced.txt", "closed.txt"}


def test_failure(command: Command) -> None:
    """Given a cell over its budget and one that crashed, then both are shown at length, and the exit code is 1."""
    command.project.behave({INT8: {"lpips": 0.2}, INT8_TE: {"do": "crash"}})
    ended = command()
    assert ended.code == 1
    assert f"{INT8}: quality.lpips: mean LPIPS 0.2000 over 0.05 (budget)\n  images: " in ended.out
    assert f"{INT8_TE}: crashed: the worker was ended by SIGSEGV; it was at: images 1/2\n  | last words" in ended.out
    assert "1 pass, 1 fail, 1 crashed" in ended.out
    assert "Traceback" not in ended.out + ended.err


def test_exit_first(command: Command) -> None:
    """Given ``-x``, then the run ends with the first failure, and what it did not reach is said."""
    command.project.behave({INT8: {"lpips": 0.2}})
    ended = command("-x")
    assert ended.code == 1
    assert command.project.produced() == [REFERENCE, INT8]
    assert "1 cells NOT run: the run ended before it" in ended.out


def test_chosen_cells(command: Command) -> None:
    """Given ``-k``, then those cells run; given words that no cell has, then a line says so, with exit code 5."""
    assert command("-k", "int8 and not int8+te").code == 0
    assert command.project.produced() == [INT8]
    ended = command("-k", "nothing")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err == "no cell was run: none that would run here matches -k 'nothing'\n"


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--require",), 1)])
def test_required(options: tuple[str, ...], code: int, command: Command) -> None:
    """Given a cell that cannot run here, then it is counted; if it is required, the exit code is 1."""
    command.project.behave({INT8: {"do": "not-run"}})
    ended = command(*options)
    assert ended.code == code
    assert f"{INT8}: NOT RUN: no compiler" in ended.out
    assert "2 pass, 1 not-run" in ended.out


def test_other_file_device_and_folder(command: Command) -> None:
    """Given options for all three, then they are obeyed."""
    (command.project.path / "other.toml").write_text(CONFIG.replace("bs1", "bs4"))
    ended = command("--config=other.toml", "--device=cpu", "--out=results", "-k", "reference")
    assert ended.code == 0
    assert [cell.id for cell in command.project.results("results").cells] == ["pixart/reference/bs4"]
    assert ended.out.endswith("results: results/run.json\n")


def test_the_environment_of_pytest_is_not_obeyed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given options and plugins that a shell sets for pytest, then they do not reach this command."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option -k nothing")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    assert command().code == 0

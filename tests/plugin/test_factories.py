"""``@qregress.pipeline`` in a conftest.py: cells like any other's, and one line for what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qregress import cli
from tests.making import CONFIG, INT8, REFERENCE
from tests.plugin import fake_producer
from tests.plugin.project import Project, usage_error

MINE = ["mine/reference/bs1", "mine/int8/bs1", "mine/int8+te/bs1"]
FACTORY = """
import qregress

@qregress.pipeline("mine", components=["transformer", "text_encoder"])
def mine(dtype, device):
    raise AssertionError("a factory is called by workers alone")
"""


@pytest.fixture
def registered(project: Project) -> Project:
    """The project of the other tests, with a factory and no pipeline of the configuration's own."""
    with (project.path / "conftest.py").open("a") as stream:
        stream.write(FACTORY)
    project.configure(('[pipelines.pixart]\nsource = "path:pipeline"\ndevices = ["cpu", "cuda"]\n', ""))
    return project


@pytest.mark.parametrize("options", [(), ("-n2",)])
def test_cells_of_a_factory(options: tuple[str, ...], registered: Project) -> None:
    """Given a factory and settings, in one process and in two, then its cells run under the settings."""
    result = registered.run_apart(*options)
    result.assert_outcomes(passed=3)
    assert sorted(registered.produced()) == sorted(MINE)
    assert [cell.id for cell in registered.results().cells] == MINE


def test_collecting_calls_nothing(registered: Project) -> None:
    """Given ``--collect-only``, then the ids are there, sorted with those of configured pipelines, and no results."""
    (registered.path / "qregress.toml").write_text(CONFIG)
    result = registered.run("--collect-only", "-q")
    ids = [line.partition("[")[2].rstrip("]") for line in result.outlines if "::" in line]
    assert ids == [*MINE, REFERENCE, INT8, INT8.replace("int8", "int8+te")]
    assert registered.produced() == []


def test_without_a_configuration(registered: Project) -> None:
    """Given no qregress.toml, then the factory runs under the embedded settings, and the pocket pipeline does not."""
    (registered.path / "qregress.toml").unlink()
    result = registered.run()
    result.assert_outcomes(passed=4)
    assert {cell.partition("/")[0] for cell in registered.produced()} == {"mine"}
    result.stdout.fnmatch_lines(
        [f"*the embedded settings, as there is no qregress.toml in {registered.path}: 4 cells*"]
    )


def test_a_budget_of_its_own(registered: Project) -> None:
    """Given a budget that names it, then it is judged by that."""
    registered.configure(("lpips = 0.05", '[budgets."mine/int8/*"]\nlpips = 0.001'))
    registered.run().assert_outcomes(passed=2, failed=1)


def test_a_device_that_it_does_not_list(registered: Project) -> None:
    """Given a factory for CUDA alone, then its cells are counted as not run."""
    conftest = registered.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace('"mine", ', '"mine", devices=["cuda"], '))
    result = registered.run()
    result.stdout.fnmatch_lines(["3 cells NOT run: pipeline 'mine' lists cuda in devices, and this run is on cpu"])


@pytest.mark.parametrize("options", [(), ("-n2",)])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def mine", "@qregress.pipeline('mine')\ndef mine", "pipeline 'mine' is registered twice, in "),
        ('"mine"', '"pixart"', "qregress.toml: pipelines.pixart: the name is taken by @qregress.pipeline in "),
        (', "text_encoder"', "", "pipeline 'mine' has no component 'text_encoder'; allowed: transformer"),
        ("import qregress\n", "import qregress\nqregress.pipeline('a b')(print)\n", "has the name 'a b', not one of"),
    ],
)
def test_mistake(options: tuple[str, ...], old: str, new: str, says: str, registered: Project) -> None:
    """Given a mistake in a registration, then it is one line and exit code 4, before anything runs."""
    (registered.path / "qregress.toml").write_text(CONFIG)
    conftest = registered.path / "conftest.py"
    assert old in conftest.read_text()
    conftest.write_text(conftest.read_text().replace(old, new))
    message = usage_error(registered.run_apart(*options) if options else registered.run())
    assert says in message
    assert registered.produced() == []


def test_registered_by_a_hook(registered: Project) -> None:
    """Given a registration that no import repeats, then it is refused, as no worker could find the function."""
    conftest = registered.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "\ndef pytest_configure(config):\n    qregress.pipeline('late')(mine)\n")
    message = usage_error(registered.run_apart())
    assert message.startswith("mine: pipeline 'late': was not registered by importing a file")


@pytest.mark.parametrize("options", [(), ("-n2",)])
def test_registered_too_late(options: tuple[str, ...], registered: Project) -> None:
    """Given a conftest.py that pytest reads only while it collects, then its factory is not lost without a word."""
    folder = registered.path / "deep" / "deeper"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text(FACTORY.replace("mine", "late"))
    (folder / "test_nothing.py").write_text("def test_nothing(): pass")
    message = usage_error(registered.run_apart(*options))
    assert message == (
        f"{folder / 'conftest.py'}: pytest reads it too late for the matrix to have pipeline 'late'; "
        f"register it in {registered.path / 'conftest.py'}"
    )


def test_the_next_run_in_this_process(registered: Project) -> None:
    """Given two runs in one process, then the second knows nothing of what only the first one's conftest.py had."""
    registered.run().assert_outcomes(passed=3)
    conftest = registered.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace(FACTORY, ""))
    assert "no pipeline; name at least one" in usage_error(registered.run())


@pytest.fixture
def command(registered: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """For ``qregress run``: no test file, and a conftest.py with a hook that it must not obey."""
    monkeypatch.setattr("qregress.items.session.Worker", fake_producer.FakeProducer)
    monkeypatch.setattr(fake_producer, "HERE", registered.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        monkeypatch.setenv(name, "")
    (registered.path / "test_matrix.py").unlink()
    (registered.path / "conftest.py").write_text(FACTORY + "\ndef pytest_configure(config):\n    1 / 0\n")
    return registered


def test_command(command: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """Given ``qregress run``, then it has the factories of ./conftest.py, and nothing else of it."""
    assert cli.main(["run"]) == 0
    assert command.produced() == MINE
    (command.path / "conftest.py").unlink()
    assert cli.main(["run"]) == 4
    assert "no pipeline; name at least one" in capfd.readouterr().err


def test_command_with_a_broken_conftest(command: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """Given a conftest.py that cannot be imported, then ``qregress run`` ends with one line."""
    path: Path = command.path / "conftest.py"
    path.write_text(path.read_text() + "\nimport no_such_module\n")
    assert cli.main(["run"]) == 4
    expected = f"ERROR: {path}: cannot be imported: ModuleNotFoundError: No module named 'no_such_module'\n"
    assert capfd.readouterr().err == expected

"""``qregress``: wrong arguments and configurations end with one line and exit code 4."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from qregress import cli
from qregress._version import __version__
from tests.making import write_project
from tests.unit.bad_configs import MISTAKES


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, in which the command runs."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        monkeypatch.setenv(name, "")  # so that what the command changes is put back
    return tmp_path


def usage_error(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The only line that a command with wrong arguments prints, without its ``ERROR: ``."""
    assert cli.main(arguments) == 4
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("ERROR: ")
    return lines[0].removeprefix("ERROR: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: VERB; see qregress --help"),
        (["rnu"], "argument VERB: invalid choice: 'rnu' (choose from"),
        (["run", "--devise=cpu"], "unrecognized arguments: --devise=cpu; did you mean '--device'? see qregress --help"),
        (["run", "--device"], "argument --device: expected one argument; see qregress run --help"),
        (["run", "more"], "unrecognized arguments: more; see qregress --help"),
    ],
)
def test_arguments(arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Given arguments that are not known, then one line says so and names the nearest."""
    assert usage_error(capfd, *arguments).startswith(says)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device=tpu"], "--qregress-device: unknown device 'tpu'; allowed: auto, cpu, cuda, cuda:N"),
        (["--device=cpu:1"], "--qregress-device: unknown device 'cpu:1'"),
        (["--config=nowhere.toml"], "nowhere.toml: no such configuration file"),
        (["--out=pipeline"], "pipeline: holds other files; name an empty folder or one of an earlier run"),
        (["--out=qregress.toml"], "qregress.toml: is a file, not a folder; choose another folder with"),
        (["--out=qregress.toml/a/b"], "qregress.toml/a/b: "),
        (["-k", "int8 and ("], "Wrong expression passed to '-k'"),
    ],
)
def test_options_of_run(arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Given an option with a wrong value, then one line says so, and no cell runs."""
    assert usage_error(capfd, "run", *arguments).startswith(says)


@pytest.mark.parametrize("name", ["malformed", "component", "dtype", "seed", "no-prompts", "budget-cell"])
def test_configuration(name: str, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Given a mistake in qregress.toml, then one line names the file, the key and the mistake, and no cell runs."""
    mistake = MISTAKES[name]
    mistake.write(project / "qregress.toml")
    message = usage_error(capfd, "run")
    assert message.startswith(f"{project / 'qregress.toml'}: {mistake.key}")
    assert mistake.says in message
    assert not (project / ".qregress").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("transformer/model.safetensors", "transformer: has a config.json but no .safetensors file"),
        ("model_index.json", "model_index.json: missing"),
        ("vae", "vae: missing; model_index.json names component 'vae'"),
    ],
)
def test_missing_file(name: str, says: str, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Given a pipeline folder that lacks a file, then one line names it."""
    path = project / "pipeline" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = usage_error(capfd, "run")
    assert message.startswith(f"{project / 'qregress.toml'}: pipelines.pixart.source: {project / 'pipeline'}")
    assert says in message


def test_truncated_file(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Given weights that end too early, then one line names the file and both sizes."""
    path = project / "pipeline" / "vae" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    size = path.stat().st_size
    assert f"{path}: truncated or overlong: {size} bytes, its header promises {size + 3}" in usage_error(capfd, "run")


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    """Given --version or --help, then it is printed and all is well."""
    assert (cli.main(["--version"]), capfd.readouterr().out) == (0, f"qregress {__version__}\n")
    assert cli.main(["run", "--help"]) == 0
    assert "--device DEVICE" in capfd.readouterr().out


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Given Ctrl-C in a verb, then a word and exit code 2, as of pytest."""

    def act(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.doctor, "act", act)
    assert cli.main(["doctor"]) == 2
    assert capfd.readouterr() == ("", "interrupted\n")

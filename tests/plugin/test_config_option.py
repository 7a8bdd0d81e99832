"""``--qregress-config``, and what is wrong with a configuration: one line, exit code 4, before anything runs."""

from __future__ import annotations

import pytest

from qregress.pipelines import pocket
from tests.making import CONFIG, INT8, INT8_TE, REFERENCE
from tests.plugin.project import Project, usage_error
from tests.unit.bad_configs import MISTAKES, PARAMETERS, Mistake


def test_another_configuration(project: Project) -> None:
    """Given another file, then its cells run, and qregress.toml is not read."""
    (project.path / "other.toml").write_text(CONFIG.replace("bs1", "bs4"))
    (project.path / "qregress.toml").write_text("[")
    project.run("--qregress-config=other.toml").assert_outcomes(passed=3)
    assert project.produced() == [cell.replace("bs1", "bs4") for cell in (REFERENCE, INT8, INT8_TE)]


def test_no_such_configuration(project: Project) -> None:
    """Given a file that is not there, then one line names it, even if no test takes a cell."""
    project.pytester.makepyfile(test_matrix="def test_ordinary(): pass")
    assert usage_error(project.run("--qregress-config=nowhere.toml")) == "nowhere.toml: no such configuration file"


@pytest.mark.parametrize("mistake", PARAMETERS)
def test_mistake(mistake: Mistake, project: Project) -> None:
    """Given a configuration with one mistake, then pytest ends with one line that names file, key and mistake."""
    path = project.path / "qregress.toml"
    (project.path / "binary").write_bytes(b"\xff\xfe\x00")
    (project.path / "empty").touch()
    mistake.write(path)
    message = usage_error(project.run())
    assert message.startswith(f"{path}: {mistake.key}")
    assert mistake.says in message
    assert not (project.path / ".qregress").exists()


@pytest.mark.parametrize("options", [(), ("-n2",), ("-p", "no:xdist", "--collect-only")])
def test_mistake_in_a_process_of_its_own(options: tuple[str, ...], project: Project) -> None:
    """Given a mistake, when pytest runs as a user runs it, then it is the same line and exit code."""
    MISTAKES["weight-type"].write(project.path / "qregress.toml")
    message = usage_error(project.run_apart(*options))
    assert "settings.int8.weights.transformer: unknown weight type 'in8'; did you mean 'int8'?" in message


def test_truncated_weights(project: Project) -> None:
    """Given a pipeline whose weights end too early, then one line names the file."""
    path = project.path / "pipeline" / "transformer" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: truncated or overlong" in usage_error(project.run())


def test_the_embedded_configuration_is_checked_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no configuration and a zoo that cannot be read, then that is one line as well, not a broken collection."""
    (project.path / "qregress.toml").unlink()
    monkeypatch.setattr(pocket, "zoo", lambda: project.path)
    assert "pipelines.aura-flow.source: unknown pocket pipeline" in usage_error(project.run())


def test_unknown_option(project: Project) -> None:
    """Given a misspelt option, then pytest itself ends with exit code 4."""
    assert project.run("--qregress-confg=x").ret == pytest.ExitCode.USAGE_ERROR

"""``qregress doctor``: facts, verdict and exit code, of this machine and of some that lack something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from qregress import cli
from qregress.doctor import Diagnosis, Fact
from tests.making import CONFIG, write_project
from tests.regression.harness import Overlay
from tests.unit.bad_configs import MISTAKES

_CPU = CONFIG.replace('devices = ["cpu", "cuda"]', 'devices = ["cpu"]')
_INT4 = _CPU.replace('text_encoder = "int8"', 'text_encoder = "int4"')
_PROBE = """
import sys
import qregress.cli
import qregress.doctor
import qregress.report.doctor
sys.exit("torch" in sys.modules)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the command runs, with three cells for a CPU."""
    write_project(tmp_path, _CPU)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> Diagnosis:
    """Its JSON, in this process; the exit code is in it."""
    capsys.readouterr()
    code = cli.main(["doctor", "--json", *arguments])
    diagnosis = msgspec.json.decode(capsys.readouterr().out, type=Diagnosis)
    assert diagnosis.code == code
    return diagnosis


def apart(folder: Path, *first: Path, **variables: str) -> tuple[Diagnosis, str]:
    """Its JSON and its stderr, in a process of its own, with folders at the head of the import path."""
    path = os.pathsep.join([*map(str, first), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-m", "qregress", "doctor", "--json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.stdout, ended.stderr
    diagnosis = msgspec.json.decode(ended.stdout, type=Diagnosis)
    assert diagnosis.code == ended.returncode
    return diagnosis, ended.stderr


def facts(diagnosis: Diagnosis) -> dict[str, Fact]:
    """All of them by name."""
    return {fact.name: fact for section in diagnosis.sections for fact in section.facts}


def test_ready(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given all that the configuration needs, then the verdict says so, and nothing is made or downloaded."""
    before = sorted(project.rglob("*"))
    diagnosis = doctor(capsys)
    assert diagnosis.verdict == f"ready: 3 of 3 cells of {project / 'qregress.toml'} can run here"
    assert (diagnosis.code, diagnosis.problems) == (0, ())
    assert facts(diagnosis)["cells on cpu"].detail == "3 of 3 can run"
    assert sorted(project.rglob("*")) == before


@pytest.mark.usefixtures("project")
def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Given the same as text, then it has each fact, what to do where something is not there, and the verdict last."""
    diagnosis = doctor(capsys)
    assert cli.main(["doctor"]) == 0
    out, err = capsys.readouterr()
    lines = [line.strip() for line in out.splitlines()]
    assert (lines[-1], err) == (diagnosis.verdict, "")
    assert [section.title for section in diagnosis.sections if section.title not in lines] == []
    for fact in facts(diagnosis).values():
        assert any(line.startswith(f"{fact.state} ") and f" {fact.name} " in f"{line} " for line in lines), fact.name
        assert fact.state == "ok" or not fact.how or f"do: {fact.how}" in lines


def test_first_run_gets_something(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given weights that are still to be downloaded, then it is ready, and the verdict tells what that costs."""
    (project / "other.toml").write_text(_CPU + '[metrics]\nlpips = "squeeze"\n')
    diagnosis = doctor(capsys, "--config=other.toml")
    assert diagnosis.code == 0
    assert diagnosis.verdict.endswith("; the first run gets lpips squeeze (a download of 5 MiB)")


def test_something_is_missing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a damaged file that the configuration needs, then that is a problem, and the exit code is 1."""
    file = project / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    (project / "other.toml").write_text(_CPU + '[metrics]\nlpips = "squeeze"\n')
    diagnosis = doctor(capsys, "--config=other.toml")
    assert (diagnosis.code, diagnosis.problems) == (1, ("lpips squeeze",))
    assert diagnosis.verdict == "1 problem: lpips squeeze; 3 of 3 cells of other.toml can run here"
    assert doctor(capsys).code == 0, "another configuration does not need it"


def test_the_embedded_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given no configuration, then the embedded one is looked at, and it is said that it is."""
    monkeypatch.chdir(tmp_path)
    found = facts(doctor(capsys))["configuration"]
    assert (
        found.detail
        == "the embedded matrix, as there is no qregress.toml here: 22 cells, 4 of them in the selection 'quick'"
    )


@pytest.mark.parametrize("name", ["malformed", "component", "budget-cell"])
def test_unreadable_configuration(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a mistake in qregress.toml, then the machine is described all the same; one line and exit code 4."""
    MISTAKES[name].write(project / "qregress.toml")
    diagnosis = doctor(capsys)
    found = facts(diagnosis)
    assert (diagnosis.code, diagnosis.verdict) == (4, "1 problem: configuration; the configuration cannot be read")
    assert found["configuration"].detail.startswith(f"{project / 'qregress.toml'}: {MISTAKES[name].key}")
    assert len(found["configuration"].detail.splitlines()) == 1
    assert found["quanto on cpu"].detail.startswith("float8, float8_e4m3fnuz, float8_e5m2, int8")


@pytest.mark.usefixtures("project")
def test_no_configuration_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Given a file that is not there, then that is said, with exit code 4."""
    diagnosis = doctor(capsys, "--config=nowhere.toml")
    assert diagnosis.code == 4
    assert facts(diagnosis)["configuration"].detail == "nowhere.toml: no such configuration file"


def test_no_compiler(project: Path, tmp_path: Path) -> None:
    """Given int4, an unbuilt extension and no compiler, then that is one problem, and it is said which cells run."""
    (project / "qregress.toml").write_text(_INT4)
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    unbuilt = Overlay(tmp_path / "overlay").replace(
        "optimum.quanto", "quantize.py", "from fnmatch import fnmatch\n", "from fnmatch import fnmatch\n\n"
    )
    diagnosis, err = apart(project, unbuilt, PATH=str(nowhere), CXX="")
    assert (diagnosis.code, diagnosis.problems, err) == (1, ("C++ compiler",), "")
    assert (diagnosis.cells.total, diagnosis.cells.here) == (3, 2)
    assert facts(diagnosis)["C++ compiler"].how == "install one (Debian: apt-get install g++)"
    reason = "no C++ compiler to build optimum-quanto's C++ extension with"
    assert (
        facts(diagnosis)["quanto on cpu"].detail
        == f"float8, float8_e4m3fnuz, float8_e5m2, int8; not int2, int4: {reason}"
    )
    assert facts(diagnosis)["cells on cpu"].detail == f"2 of 3 can run; 1 cannot: int4: {reason}"


def test_cuda_alone(project: Path) -> None:
    """Given cells for CUDA alone and no CUDA device, then nothing runs here, and that is the problem."""
    (project / "qregress.toml").write_text(_CPU.replace('["cpu"]', '["cuda"]'))
    diagnosis, _ = apart(project, CUDA_VISIBLE_DEVICES="")
    assert (diagnosis.code, diagnosis.problems, diagnosis.cells.here) == (1, ("cuda",), 0)
    assert "CUDA_VISIBLE_DEVICES is ''" in facts(diagnosis)["cuda"].detail


def test_broken_torch(project: Path, tmp_path: Path) -> None:
    """Given a torch that cannot be imported, then that is the problem, and what needs it is not looked at."""
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    diagnosis, err = apart(project, tmp_path / "broken")
    assert (diagnosis.code, diagnosis.problems, err) == (1, ("import torch",), "")
    assert diagnosis.cells.not_here == {"torch cannot be imported": 3}
    assert "libtorch.so: no such file" in facts(diagnosis)["import torch"].detail


def test_no_torch_on_import() -> None:
    """Given the command line and the room of its probes, then importing them imports no torch."""
    assert subprocess.run([sys.executable, "-c", _PROBE], check=False, timeout=60).returncode == 0

"""``qregress init``: what it writes works, and what is there is left."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from qregress import cli, config
from qregress.cli import starter
from qregress.matrix import canonical
from tests.making import write_folder

_CELLS = 4

#: A disk that is full, as far as one process is concerned; ``SIGXFSZ`` is ignored by Python, so that it is an error.
_FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from qregress.cli import main
sys.exit(main(["init"]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a folder, as a user does."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=keep | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def code(text: str) -> set[str]:
    """A module's statements, without docstrings, each as Python writes it."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            del node.body[0]
    return {ast.unparse(node) for node in tree.body[1:]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_empty_folder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given an empty folder, then three files are written and named, and nothing else is."""
    assert cli.main(["init"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(contents(project)) == ["conftest.py", "qregress.toml", "test_quantized.py"]
    assert lines[:3] == ["wrote: qregress.toml", "wrote: test_quantized.py", "wrote: conftest.py"]
    assert lines[3].startswith("next: `qregress doctor`")


def test_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a folder with all three, then a second call changes nothing and says so."""
    cli.main(["init"])
    before = contents(project)
    capsys.readouterr()
    assert cli.main(["init"]) == 0
    assert contents(project) == before
    assert capsys.readouterr().out.splitlines() == [
        "left as it is: qregress.toml",
        "left as it is: test_quantized.py",
        "left as it is: conftest.py (it has --gpu already)",
        "nothing was changed",
    ]


def test_tests_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given another folder with tests/ in it, then the test file goes there, and conftest.py does not."""
    (tmp_path / "tests").mkdir()
    assert cli.main(["init", f"--dir={tmp_path}"]) == 0
    assert sorted(contents(tmp_path)) == ["conftest.py", "qregress.toml", "tests/test_quantized.py"]
    assert f"wrote: {tmp_path / 'tests' / 'test_quantized.py'}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["qregress.toml", "test_quantized.py"])
def test_a_file_is_left(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given one of the files, with other contents, then it is left and the others are written."""
    (project / name).write_text("mine")
    assert cli.main(["init"]) == 0
    assert (project / name).read_text() == "mine"
    assert f"left as it is: {name}\n" in capsys.readouterr().out
    assert len(contents(project)) == 3


def test_a_link_to_nowhere_is_left(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a link whose target is gone, then nothing is written through it."""
    (project / "qregress.toml").symlink_to(project / "gone.toml")
    assert cli.main(["init"]) == 0
    assert not (project / "gone.toml").exists()
    assert "left as it is: qregress.toml\n" in capsys.readouterr().out


def test_a_conftest_without_the_option(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a conftest.py, then it is left, and the lines for it are printed."""
    (project / "conftest.py").write_text("import pytest\n")
    assert cli.main(["init"]) == 0
    assert (project / "conftest.py").read_text() == "import pytest\n"
    out = capsys.readouterr().out
    assert f"left as it is: conftest.py; for `pytest --gpu` paste this into it:\n\n{starter.CONFTEST}" in out


@pytest.mark.parametrize("name", ["conftest.py", "tests/conftest.py"])
def test_a_conftest_with_the_option(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a conftest.py that has the option, in either place, then none is written or printed: pytest refuses two."""
    (project / "tests").mkdir()
    text = 'def pytest_addoption(parser):\n    parser.addoption("--gpu", action="store_true")\n'
    (project / name).write_text(text)
    assert cli.main(["init"]) == 0
    out = capsys.readouterr().out
    assert f"left as it is: {name} (it has --gpu already)\n" in out
    assert "paste" not in out
    assert [path for path in contents(project) if path.endswith("conftest.py")] == [name]


def test_the_configuration_is_the_embedded_one(tmp_path: Path) -> None:
    """Given what was written, then it loads, and its cells and budgets are the embedded matrix's."""
    cli.main(["init", f"--dir={tmp_path}"])
    written, embedded = config.load(tmp_path / "qregress.toml"), config.load(config.embedded_path())
    known = {cell.id: cell for cell in embedded.cells()}
    assert len(written.cells()) == _CELLS
    for cell in written.cells():
        same = known[cell.id]
        assert (cell.pipeline, canonical(cell.setting), cell.workload) == (
            same.pipeline,
            canonical(same.setting),
            same.workload,
        )
        assert written.budgets.of(cell.id) == embedded.budgets.of(cell.id)
    assert written.metrics == embedded.metrics
    assert written.run == msgspec.structs.replace(embedded.run, select=None)


def test_the_example_of_a_pipeline(tmp_path: Path) -> None:
    """Given the commented pipeline without its comment signs, and the folder that it names, then that loads too."""
    lines = starter.config().splitlines()
    start = lines.index("# [pipelines.mine]")
    for index in range(start, start + 4):
        lines[index] = lines[index].removeprefix("# ")
    path = tmp_path / "qregress.toml"
    path.write_text("\n".join(lines))
    write_folder(tmp_path / "models" / "my-pixart")
    assert [pipeline.name for pipeline in config.load(path).pipelines] == ["pixart-sigma", "mine"]


def test_the_example_of_a_waiver() -> None:
    """Given the commented waiver without its comment signs, then it is TOML with all that a waiver has."""
    text = starter.config()
    example = "\n".join(line.removeprefix("# ") for line in text[text.index("# [[waivers]]") :].splitlines())
    assert set(tomllib.loads(example)["waivers"][0]) == {"cell", "check", "reason", "issue", "expires"}


def test_pytest_collects_it(project: Path) -> None:
    """Given what was written, then pytest collects its cells, with and without ``--gpu``'s lines in use."""
    cli.main(["init"])
    ended = run(project, "pytest", "--co", "-q")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{_CELLS} tests collected" in ended.stdout
    assert "test_quantized.py::test_quantized[pixart-sigma/float8+te/bs1]" in ended.stdout


def test_pytest_with_gpu(project: Path) -> None:
    """Given what was written and no CUDA device, then ``pytest --gpu`` is an error of one line."""
    cli.main(["init"])
    ended = run(project, "pytest", "--gpu", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert ended.stderr.strip().startswith("ERROR: cuda was asked for, but torch sees no CUDA device")


def test_files_are_tidy(project: Path) -> None:
    """Given what was written, then ruff finds nothing in it, neither rules nor format."""
    cli.main(["init"])
    for arguments in (["check"], ["format", "--check"], ["format", "--check", "--line-length=120"]):
        ended = run(project, "ruff", *arguments, "--isolated", ".")
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_conftest_is_this_repositorys() -> None:
    """Given this repository's conftest.py, then its code for the option is what ``init`` writes."""
    here, written = (code(text) for text in ((Path(__file__).parents[3] / "conftest.py").read_text(), starter.CONFTEST))
    assert here - written == {"pytest_plugins = ['pytester']"}
    assert written < here
    assert "pytest_plugins" not in starter.CONFTEST


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("nowhere", "nowhere: no such folder; name"),
        ("file", "file: is a file, not a folder; name"),
    ],
)
def test_no_folder(folder: str, says: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a folder that is none, then one line says so, with exit code 4, and nothing is made."""
    (project / "file").touch()
    assert cli.main(["init", "--dir", folder]) == 4
    assert capsys.readouterr().err.startswith(f"ERROR: {says}")
    assert sorted(contents(project)) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, in which not even root can make a file")
def test_unwritable_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Given a folder that takes no file, then one line says so, with exit code 4."""
    assert cli.main(["init", "--dir=/proc/self"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ERROR: /proc/self/qregress.toml: cannot be written: ")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
def test_full_disk(project: Path) -> None:
    """Given a file that cannot be written to its end, then no part of it is left for the next call to find."""
    ended = subprocess.run(
        [sys.executable, "-c", _FULL_DISK], cwd=project, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 4, ended.stderr
    assert ended.stderr.startswith("ERROR: qregress.toml: cannot be written: File too large")
    assert contents(project) == {}


def test_the_test_file_has_three_lines() -> None:
    """Given the test file, then it is as short as the README says."""
    assert len(starter.TEST.splitlines()) == 3
    assert msgspec.json.encode(starter.TEST).isascii()

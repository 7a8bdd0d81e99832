"""Tools and extensions: found where torch looks for them, and needed only where something is still to be built."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
import torch

from qregress.doctor import Fact
from qregress.doctor.compilers import compilers
from qregress.quantize import extensions
from qregress.quantize.extensions import CPP, CUDA, build_folder, is_built, lacking, tools

_EXTENSION = "optimum-quanto's C++ extension"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of quanto's own."""
    folder = tmp_path / "build"
    folder.mkdir()
    monkeypatch.setattr(extensions, "build_folder", lambda _: folder)
    return folder


def make(build: Path, version: str) -> None:
    """What quanto leaves after a build."""
    (build / "quanto_cpp.so").touch()
    (build / "pytorch_version.txt").write_text(version)


def facts(*weights: str) -> dict[str, Fact]:
    """By name, for a configuration that asks for these weights on a CPU."""
    return {fact.name: fact for fact in compilers({"cpu": set(weights)}, ["cpu"])}


def test_the_folder_is_quantos_own() -> None:
    """Given quanto, then the folder is the one that it builds in, which it tells only once it is imported."""
    from optimum.quanto.library.extensions.cpp import ext

    assert str(build_folder(CPP)) == ext.build_directory
    assert ext.name == CPP.library


def test_built(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an extension for this torch, then it is there, and a compiler that is not there is not needed."""
    make(build, torch.__version__)
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = facts("int4")
    assert (found[_EXTENSION].state, found["C++ compiler"].state) == ("ok", "absent")


@pytest.mark.usefixtures("build")
def test_not_built() -> None:
    """Given the tools but no extension, then the first run builds it where int4 or int2 is asked for."""
    assert all(tool.path is not None for tool in tools(CPP)), "this test needs a C++ compiler"
    assert (facts("int4")[_EXTENSION].state, facts("int8")[_EXTENSION].state) == ("later", "absent")
    assert facts("int2")[_EXTENSION].cost == "about 45 s on two cores"


def test_built_for_another_torch(build: Path) -> None:
    """Given an extension for another torch, then it counts as not built: quanto deletes it."""
    make(build, "1.0")
    assert not is_built(CPP)
    assert facts("int4")[_EXTENSION].state == "later"


@pytest.mark.usefixtures("build")
@pytest.mark.parametrize(("weights", "state"), [("int4", "missing"), ("int8", "absent")])
def test_no_compiler(weights: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a PATH without a compiler, then it is missing where it must build something; one problem, not two."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    found = facts(weights)
    assert (found["C++ compiler"].state, found[_EXTENSION].state) == (state, state)
    assert (found["C++ compiler"].cause, found[_EXTENSION].cause) == ("", "C++ compiler")
    assert found["C++ compiler"].how == "install one (Debian: apt-get install g++)"
    assert found["ninja"].state == "ok", "the package brings its own"


def test_the_compiler_is_torchs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a g++ but no c++, then there is none, as torch calls c++; given CXX with arguments, then that is it."""
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert tools(CPP)[0].path is None
    monkeypatch.setenv("CXX", "g++ -v")
    assert tools(CPP)[0].path == tmp_path / "g++"


@pytest.mark.usefixtures("build")
def test_no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a Python without its headers, then they are what is lacking."""
    monkeypatch.setattr(sysconfig, "get_path", lambda *_, **__: str(tmp_path))
    tool = lacking(CPP)
    assert tool is not None
    assert (tool.name, tool.how) == ("Python headers", "install them (Debian: apt-get install python3-dev)")


@pytest.mark.parametrize(
    ("release", "why"), [("13.0", None), ("12.4", "is of release 12, torch of CUDA 13.2: it refuses to build")]
)
def test_nvcc(release: str, why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a toolkit, then it serves where its major version is torch's."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho 'nvcc: NVIDIA (R) Cuda compiler driver'\necho 'tools, release {release}, V1.2'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    tool = tools(CUDA)[-1]
    assert tool.path == (nvcc if why is None else None)
    assert why is None or tool.why == f"{nvcc} {why}"


def test_no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given CUDA but no toolkit, then nvcc is missing for float8, and not asked about where there is no CUDA."""
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    found = {fact.name: fact for fact in compilers({"cuda": {"float8"}}, ["cpu", "cuda"])}
    assert found["nvcc"].state == "missing"
    assert found["optimum-quanto's CUDA extension"].cause == "nvcc"
    assert "nvcc" not in facts("float8")

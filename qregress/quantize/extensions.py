"""What optimum-quanto compiles on first use: for which weights, with which tools, and whether it is there already."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import msgspec

_CUDA_TOOLKIT = "https://developer.nvidia.com/cuda-downloads"


class Tool(msgspec.Struct, frozen=True):
    """Something that a build needs: its path, ``None`` where none can be used and why, and how to get it."""

    name: str
    path: Path | None
    how: str
    why: str = "not found"


class Extension(msgspec.Struct, frozen=True):
    """One of quanto's extensions: folder, library, the weight types that need it, and what building takes."""

    name: str
    folder: str
    library: str
    weights: frozenset[str]
    cost: str


#: Unpacks packed weights on a CPU.
CPP = Extension("C++ extension", "cpp", "quanto_cpp", frozenset({"int4", "int2"}), "about 45 s on two cores")
#: Unpacks them on CUDA, and multiplies: AWQ for int4 in float16, Marlin for float8.
CUDA = Extension("CUDA extension", "cuda", "quanto_cuda", frozenset({"float8", "int4", "int2"}), "80 to 100 s")

#: Backend and kind of device -> what its kernels need. Who is not here compiles nothing.
NEEDED = {
    ("quanto", "cpu"): CPP,
    ("quanto", "cuda"): CUDA,
    ("diffusers", "cpu"): CPP,
    ("diffusers", "cuda"): CUDA,
}


def build_folder(extension: Extension) -> Path | None:
    """Where quanto builds it, ``None`` without quanto. Quanto itself is not imported."""
    try:
        spec = importlib.util.find_spec("optimum.quanto")
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "library" / "extensions" / extension.folder / "build"


def is_built(extension: Extension) -> bool:
    """Whether it is there, made for this torch: quanto deletes one that was made for another."""
    folder = build_folder(extension)
    if folder is None or not any(folder.glob(f"{extension.library}.*")):
        return False
    import torch  # its own version names the CUDA build too, the package's does not

    made_for = folder / "pytorch_version.txt"
    return made_for.is_file() and made_for.read_text(encoding="utf-8").rstrip() == torch.__version__


def tools(extension: Extension) -> tuple[Tool, ...]:
    """What a build needs, each looked for where torch looks for it."""
    found = (
        Tool("C++ compiler", _compiler(), "install one (Debian: apt-get install g++)"),
        Tool("Python headers", _headers(), "install them (Debian: apt-get install python3-dev)"),
        Tool("ninja", _ninja(), "pip install ninja"),
    )
    return (*found, _nvcc()) if extension is CUDA else found


def lacking(extension: Extension) -> Tool | None:
    """The first tool that is missing for a build that is still to be done."""
    return None if is_built(extension) else next((tool for tool in tools(extension) if tool.path is None), None)


def version(program: Path) -> str:
    """The first line of ``--version`` that has a number in it."""
    try:
        ended = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        return f"does not answer --version ({type(error).__name__})"
    return next((line.strip() for line in ended.stdout.splitlines() if re.search(r"\d\.\d", line)), "")


def _nvcc() -> Tool:
    """In the toolkit that torch has found, and of torch's own major version: torch builds with no other."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    built = torch.version.cuda or ""
    how = f"install the CUDA toolkit {built} ({_CUDA_TOOLKIT}) and set CUDA_HOME to it"
    path = Path(CUDA_HOME or "", "bin", "nvcc")
    if not CUDA_HOME or not os.access(path, os.X_OK):
        return Tool("nvcc", None, how)
    release = re.search(r"release (\d+)", version(path))
    if release is not None and built and release[1] != built.partition(".")[0]:
        return Tool("nvcc", None, how, f"{path} is of release {release[1]}, torch of CUDA {built}: it refuses to build")
    return Tool("nvcc", path, how)


def _compiler() -> Path | None:
    """Torch calls ``$CXX``, which may have arguments, or ``c++``; it does not try g++ or clang++."""
    words = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    return _which(words[0])


def _headers() -> Path | None:
    path = Path(sysconfig.get_path("include", scheme="posix_prefix")) / "Python.h"
    return path if path.is_file() else None


def _ninja() -> Path | None:
    """On PATH, else the package's own, which ``Quanto.prepare`` puts there."""
    on_path = _which("ninja")
    if on_path is not None:
        return on_path
    try:
        import ninja
    except ImportError:
        return None
    return _which("ninja", path=ninja.BIN_DIR)


def _which(name: str, path: str | None = None) -> Path | None:
    found = shutil.which(name, path=path)
    return Path(found) if found is not None else None

"""``qregress init``: a configuration, a test file and the conftest lines for ``--gpu``, and nothing overwritten."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from qregress.cli import starter
from qregress.errors import ConfigError

_OPTION = re.compile(r"""["']--gpu["']""")


def add(verbs: Any) -> None:
    """Describe the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "init",
        help="write qregress.toml, a test file and the conftest lines for --gpu",
        description="Write qregress.toml, a three-line test file and the conftest lines for `pytest --gpu` into a "
        "project. What is there already is left as it is.",
    )
    parser.add_argument("--dir", metavar="DIR", default=".", help="the project's folder (default: this one)")
    parser.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """Write what is missing, and say what was there."""
    root = Path(options.dir)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise ConfigError(f"{root}: {what}; name the folder that has your pyproject.toml")
    tests = root / "tests" if (root / "tests").is_dir() else root
    wrote = [
        _put(root / "qregress.toml", starter.config()),
        _put(tests / "test_quantized.py", starter.TEST),
        _conftest(root, tests),
    ]
    if any(wrote):
        print(
            "next: `qregress doctor` says what this machine can run; `qregress run`, or pytest in that folder, runs it"
        )
    else:
        print("nothing was changed")
    return 0


def _put(path: Path, text: str) -> bool:
    """Write a file that is not there; says what became of it, and returns whether it was written.

    Raises ``ConfigError`` where that cannot be done, and then leaves no part of it: the next ``init`` would take it
    for the user's own.
    """
    try:
        file = path.open("x", encoding="utf-8")  # never over another file, not even one made since we looked
    except FileExistsError:
        print(f"left as it is: {path}")
        return False
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; name a folder that you may write to") from None
    try:
        with file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; nothing of it was left") from None
    print(f"wrote: {path}")
    return True


def _conftest(root: Path, tests: Path) -> bool:
    """The lines for ``--gpu``: to the root's conftest.py, the only one that pytest asks for options in every call."""
    path = root / "conftest.py"
    for existing in dict.fromkeys((path, tests / "conftest.py")):
        if _has_option(existing):
            print(f"left as it is: {existing} (it has --gpu already)")
            return False
    if not path.exists():
        return _put(path, starter.CONFTEST)
    print(f"left as it is: {path}; for `pytest --gpu` paste this into it:\n\n{starter.CONFTEST}")
    return False


def _has_option(path: Path) -> bool:
    """Whether a conftest.py adds the option: twice would be an error of every pytest run."""
    try:
        return bool(_OPTION.search(path.read_text(encoding="utf-8", errors="replace")))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a conftest.py, or none") from None

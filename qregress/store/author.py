"""Who accepts, and the state of the repository that a run was made in."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path


def author(folder: Path) -> str:
    """``Name <mail>`` as git knows it there, else the login name."""
    name, mail = (_git(folder, "config", f"user.{key}") for key in ("name", "email"))
    if name:
        return f"{name} <{mail}>" if mail else name
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        return "unknown"


def commit(folder: Path) -> str | None:
    """The commit that is checked out, with ``-dirty`` where files differ from it; ``None`` outside of a repository."""
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or os.environ.get("GITHUB_SHA")


def _git(folder: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run([git, *arguments], cwd=folder, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode(errors="replace").strip()  # git keeps a name in whatever bytes it was given
    return text or None if done.returncode == 0 else None

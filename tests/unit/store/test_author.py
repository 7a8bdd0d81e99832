"""Who accepts, and the commit of a run."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from pathlib import Path

import pytest

from qregress.store.author import author, commit

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="needs git")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody's own configuration, repository or CI."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GITHUB_SHA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def git(folder: Path, *arguments: str) -> None:
    """Run git there."""
    assert GIT is not None
    subprocess.run([GIT, *arguments], cwd=folder, check=True, capture_output=True)


@needs_git
@pytest.mark.parametrize(
    ("name", "mail", "says"),
    [
        ("Ada", "ada@example.org", "Ada <ada@example.org>"),
        ("Jürgen Groß", "", "Jürgen Groß"),
        ("Ada", "", "Ada"),
    ],
)
def test_as_git_knows_it(tmp_path: Path, name: str, mail: str, says: str) -> None:
    """Given a name and an address in git's configuration, then those are it."""
    git(tmp_path, "init")
    git(tmp_path, "config", "user.name", name)
    git(tmp_path, "config", "user.email", mail)
    assert author(tmp_path) == says


@needs_git
def test_a_name_in_other_bytes(tmp_path: Path) -> None:
    """Given a name that is not UTF-8, then it is shown as well as it can be, and can be kept."""
    git(tmp_path, "init")
    with (tmp_path / ".git" / "config").open("ab") as stream:
        stream.write(b"[user]\n name = J\xfcrgen\n")
    assert author(tmp_path) == "J\ufffdrgen"
    author(tmp_path).encode()


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given no git, then the login name is it; a number without a name is unknown."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert author(tmp_path) == "ada"
    assert commit(tmp_path) is None

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert author(tmp_path) == "unknown"


@needs_git
def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a repository, then its commit is it, dirty where files differ, never a tag; outside of one, CI's."""
    assert commit(tmp_path) is None
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    assert commit(tmp_path) == "f" * 40
    git(tmp_path, "init")
    assert commit(tmp_path) == "f" * 40  # nothing is committed yet
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "-m", "one")
    git(tmp_path, "tag", "v1")
    found = commit(tmp_path)
    assert found is not None
    assert (len(found), set(found) <= set("0123456789abcdef")) == (40, True)
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{found}-dirty"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """Given a folder that does not exist, then there is no commit, and no error."""
    assert commit(tmp_path / "gone") is None

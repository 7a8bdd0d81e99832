"""``qregress zoo``: what is listed and copied out is what the package holds, and nothing is ever overwritten."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from qregress import pipelines
from qregress.pipelines import export, pocket
from qregress.pipelines.digest import source_sha256
from qregress.pipelines.folder import inspect
from tests.making import write_folder
from tests.unit.cli.conftest import Verb

ROOT = Path(__file__).parents[3]
NAMES = pocket.names()
NAME = "sd3"

#: A disk that is full, as far as one process is concerned, after every configuration and before the first weights.
FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from qregress.cli import main
sys.exit(main(sys.argv[1:]))
"""
LOADED = """
import sys
from qregress import cli
code = cli.main(sys.argv[1:])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "diffusers", "transformers"}))
sys.exit(code)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arguments(text: str) -> dict[str, Any]:
    """What the pipeline's call in a snippet is given, its generator left out."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    call = next(node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "pipeline")
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg not in {None, "generator"}}
    return {str(name): ast.literal_eval(value) for name, value in given.items()}


def parameters(folder: Path) -> int:
    """Of a component, as safetensors itself counts them."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - a handle
    return total


@pytest.mark.usefixtures("project")
def test_list(verb: Verb) -> None:
    """Every pocket pipeline is there with its class, every component with its own, and sizes that add up."""
    code, out, err = verb("zoo", "list")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[1:]]
    for name in NAMES:
        folder = pocket.find(name)
        index = json.loads((folder.path / "model_index.json").read_text())
        start = next(at for at, row in enumerate(rows) if row[0] == name)
        shown = {row[0]: (row[1], int(row[2].replace(",", ""))) for row in rows[start + 1 :][: len(folder.components)]}
        counts = {part: parameters(folder.shared.get(part, folder.path / part)) for part in folder.components}
        assert shown == {part: (index[part][1], counts[part]) for part in folder.components}
        assert rows[start][1:3] == [folder.class_name, f"{sum(counts.values()):,}"]
    assert len(rows) == sum(1 + len(pocket.find(name).components) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_export(name: str, project: Path, verb: Verb) -> None:
    """The folder has all files of the pipeline, shared components too, and none that is the package's own."""
    code, _, err = verb("zoo", "export", name, "out")
    assert (code, err) == (0, "")
    folder = pocket.find(name)
    expected = contents(folder.path)
    for component, path in folder.shared.items():
        expected |= {f"{component}/{file}": data for file, data in contents(path).items()}
    beside = {"pocket.json", "card.md", "training.json", "scores.json"}
    expected = {file: data for file, data in expected.items() if Path(file).name not in beside}
    found = contents(project / "out")
    assert {file: data for file, data in found.items() if not file.endswith("README.md")} == expected
    assert "README.md" in found
    assert inspect(project / "out", {}) == inspect(folder.path, folder.shared)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_source_but_for_its_sheet(name: str, verb: Verb, project: Path) -> None:
    """As ``path:`` it has another digest, for want of pocket.json, which says how to call it; with it, the same."""
    verb("zoo", "export", name, "out")
    packed = pocket.find(name)
    assert source_sha256(pipelines.check("path:out")) != source_sha256(packed)
    (project / "out" / "pocket.json").write_bytes((packed.path / "pocket.json").read_bytes())
    assert source_sha256(pipelines.check("path:out")) == source_sha256(packed)


@pytest.mark.parametrize("name", NAMES)
def test_readme(name: str, project: Path, verb: Verb) -> None:
    """The card is kept, leads nowhere that is not there, and says how to call the pipeline, as the screen does."""
    _, out, _ = verb("zoo", "export", name, "out")
    text = (project / "out" / "README.md").read_text()
    card = (pocket.zoo() / name / "card.md").read_text()
    assert text.splitlines()[0] == card.splitlines()[0]
    assert text[text.index("## Scores") :].splitlines()[:8] == card[card.index("## Scores") :].splitlines()[:8]
    for readme in (project / "out").rglob("README.md"):
        for target in re.findall(r"\]\(([^)]*)\)", readme.read_text()):
            assert target.startswith("https://") or (readme.parent / target).exists(), target
        assert "`shared/" not in readme.read_text()
    told = text.partition("```python\n")[2].partition("```")[0]
    shown = out.partition("\n\n")[2]
    assert shown == told.replace('from_pretrained(".")', 'from_pretrained("out")')
    assert arguments(shown) == pocket.find(name).call


def test_links_of_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    """A picture in the repository goes with its line, a link there becomes its text, one to the web stays."""
    zoo = write_zoo(tmp_path)
    card = "# A\n\nSee [how](../../training/README.md), [why](https://example.org/a) and ![x](x.png).\n\n"
    (zoo / "pixart-alpha" / "card.md").write_text(f"{card}![samples](../../img/a.webp)\n\nEnd, in `shared/vae-4`.\n")
    monkeypatch.setattr(pocket, "zoo", lambda: zoo)
    assert verb("zoo", "export", "pixart-alpha", str(tmp_path / "out"))[0] == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("# A\n\nSee how, [why](https://example.org/a) and x.\n\nEnd, in `vae/`.\n\n## Use\n")


def test_a_component_of_another_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    """A component that lies in another pocket pipeline is copied from there."""
    zoo = write_zoo(tmp_path)
    monkeypatch.setattr(pocket, "zoo", lambda: zoo)
    assert verb("zoo", "export", "pixart-alpha", str(tmp_path / "out"))[0] == 0
    found = contents(tmp_path / "out")
    assert inspect(tmp_path / "out", {}).components == ("transformer", "text_encoder", "vae")
    lent = contents(zoo / "pixart-sigma" / "text_encoder")
    assert {f"text_encoder/{name}": data for name, data in lent.items()}.items() <= found.items()
    assert found["vae/README.md"] == b"# A VAE\n"


def write_zoo(tmp_path: Path) -> Path:
    """A zoo whose second pipeline takes its text encoder from the first one's folder."""
    zoo = tmp_path / "zoo"
    for name in ("pixart-sigma", "pixart-alpha"):
        folder = write_folder(zoo / name)
        (folder / "card.md").write_text(f"# {name}\n")
    for part in ("text_encoder", "vae"):
        place = zoo / "shared" / "vae-4" if part == "vae" else tmp_path / "unused"
        place.parent.mkdir(parents=True, exist_ok=True)
        (zoo / "pixart-alpha" / part).rename(place)
    (zoo / "shared" / "vae-4" / "card.md").write_text("# A VAE\n")
    shared = {"vae": "vae-4", "text_encoder": "../pixart-sigma/text_encoder"}
    sheet = {"schema": 1, "shared": shared, "trained": True, "call": {"height": 8}}
    (zoo / "pixart-alpha" / "pocket.json").write_text(json.dumps(sheet))
    return zoo


def test_an_empty_folder_a_link_and_parents(project: Path, verb: Verb) -> None:
    """A folder that is empty is filled, a link to one is followed, and parents that are missing are made."""
    (project / "empty").mkdir()
    (project / "link").symlink_to("empty")
    for place in ("link", "a/b/c"):
        assert verb("zoo", "export", NAME, place)[0] == 0
    assert (project / "link").is_symlink()
    assert contents(project / "empty") == contents(project / "a" / "b" / "c")
    assert sorted(path.name for path in project.iterdir()) == ["a", "empty", "link"]
    assert oct((project / "empty").stat().st_mode) == oct((project / "a").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "place", "says"),
    [
        ("sd33", "out", "unknown pocket pipeline 'sd33'; did you mean 'sd3'? allowed: "),
        ("", "out", "unknown pocket pipeline ''; allowed: "),
        ("../zoo/sd3", "out", "unknown pocket pipeline '../zoo/sd3'; "),
        (NAME, "full", "full: is not empty, and nothing is ever overwritten; name a new folder"),
        (NAME, "full/mine", "full/mine: is a file, not a folder; name a new folder"),
        (NAME, "nowhere", "nowhere: is a link to nowhere; name a new folder"),
        (NAME, "full/mine/x", "full/mine/x: cannot be written: Not a directory; name a new folder"),
        (NAME, "x" * 300, f"{'x' * 300}: cannot be written: File name too long; name a new folder"),
    ],
)
def test_wrong_arguments(name: str, place: str, says: str, project: Path, verb: Verb) -> None:
    """A name that is none, and a place that is taken: one line, exit code 4, and everything stays as it is."""
    (project / "full").mkdir()
    (project / "full" / "mine").write_text("mine")
    (project / "nowhere").symlink_to("gone")
    code, out, err = verb("zoo", "export", name, place)
    assert (code, out) == (4, "")
    assert err.startswith(f"ERROR: {says}")
    assert len(err.splitlines()) == 1
    assert contents(project) == {"full/mine": b"mine"}
    assert sorted(path.name for path in project.iterdir()) == ["full", "nowhere"]


@pytest.mark.parametrize("place", [".", ""])
def test_the_current_folder(place: str, project: Path, verb: Verb) -> None:
    """The folder that a shell stands in is not replaced under it."""
    code, _, err = verb("zoo", "export", NAME, place)
    assert (code, err) == (4, "ERROR: .: is the current folder; name a new folder in it\n")
    assert contents(project) == {}


@pytest.mark.parametrize("arguments", [("zoo",), ("zoo", "export", NAME), ("zoo", "exprot", NAME, "out")])
def test_usage(arguments: tuple[str, ...], project: Path, verb: Verb) -> None:
    """A missing action or folder, and an action that is none, are usage errors of one line."""
    code, out, err = verb(*arguments)
    assert (code, out, len(err.splitlines())) == (4, "", 1)
    assert contents(project) == {}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, in which not even root can make a folder")
def test_unwritable(verb: Verb) -> None:
    """A place where no folder can be made: one line, exit code 4."""
    code, out, err = verb("zoo", "export", NAME, "/proc/self/out")
    assert (code, out) == (4, "")
    assert err.startswith("ERROR: /proc/self/out: cannot be written: ")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
@pytest.mark.parametrize("place", ["out", "a/b/out"])
def test_full_disk(place: str, project: Path) -> None:
    """A disk that is full half-way: one line, exit code 4, and nothing of the folder is left, nor of its parents."""
    ended = apart(FULL_DISK, project, "zoo", "export", NAME, place)
    assert ended.returncode == 4, ended.stderr
    assert ended.stderr.startswith(f"ERROR: {place}: cannot be written: File too large; ")
    assert list(project.iterdir()) == []


def test_a_folder_that_is_taken_meanwhile(project: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come into the folder since it was looked at is not overwritten either."""
    (project / "out").mkdir()
    (project / "out" / "mine").write_text("mine")
    monkeypatch.setattr(export, "_check_free", lambda _: None)
    code, _, err = verb("zoo", "export", NAME, "out")
    assert (code, err.startswith("ERROR: out: cannot be written: Directory not empty; ")) == (4, True)
    assert contents(project) == {"out/mine": b"mine"}


def test_a_damaged_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb) -> None:
    """A file of the package that is not there is named, and nothing is written."""
    zoo = write_zoo(tmp_path)
    (zoo / "pixart-alpha" / "card.md").unlink()
    monkeypatch.setattr(pocket, "zoo", lambda: zoo)
    code, _, err = verb("zoo", "export", "pixart-alpha", str(tmp_path / "out"))
    assert code == 4
    assert err.startswith(f"ERROR: {zoo / 'pixart-alpha' / 'card.md'}: cannot be read: No such file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("zoo", "list"), ("zoo", "export", NAME, "out")], ids=["list", "export"])
def test_no_torch(arguments: tuple[str, ...], project: Path) -> None:
    """Neither action imports torch, numpy or a library of models."""
    ended = apart(LOADED, project, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


def apart(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

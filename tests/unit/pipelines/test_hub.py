"""``hub:``: a repository at a pinned revision, from a server that answers like the hub."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from qregress import cli, pipelines
from qregress.errors import ConfigError, QregressError, SourceError
from qregress.pipelines import hub as source
from qregress.pipelines.digest import source_sha256
from qregress.pipelines.folder import Folder
from qregress.pipelines.hub import Repository
from tests.hub_server import COMMIT, REPOSITORY, TAG, Hub, etag, serve
from tests.making import write_folder, write_safetensors

PINNED = f"hub:{REPOSITORY}@{COMMIT}"
TAGGED = f"hub:{REPOSITORY}@{TAG}"
WEIGHTS = {f"{name}/model.safetensors" for name in ("transformer", "text_encoder", "vae")}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, and an empty cache."""
    folder = write_folder(tmp_path / "repository")
    for place, name in enumerate(sorted(WEIGHTS)):  # no two files alike: the cache holds what is alike once
        write_safetensors(folder / name, 4000 + place)
    for config in folder.glob("*/*.json"):
        config.write_text(json.dumps({"_": str(config)}))
    (folder / "README.md").write_text("a card")
    (folder / "whole.safetensors").write_bytes(b"all in one")
    with serve(folder) as found:
        use(monkeypatch, found.endpoint, tmp_path / "cache")
        yield found


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Read constants that the client makes of the environment when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    source._look.cache_clear()


def wrong(name: str) -> str:
    """The one line that is said of a source, with all of it fetched."""
    source._look.cache_clear()
    with pytest.raises(SourceError) as caught:
        pipelines.whole(pipelines.check(name))
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    return text.removeprefix(f"{name}: ")


@pytest.mark.parametrize("name", [PINNED, TAGGED])
def test_nothing_large_is_fetched_for_a_look(hub: Hub, name: str) -> None:
    """Given a repository, then its parts are known from small files; a run then fetches weights, and no other files."""
    found = pipelines.check(name)
    assert isinstance(found, Repository)
    assert (found.class_name, found.components) == ("PixArtSigmaPipeline", ("transformer", "text_encoder", "vae"))
    assert (found.default_devices, found.trained, found.pinned) == (("cuda",), True, PINNED)
    assert not hub.fetched() & WEIGHTS
    assert found.missing == sum((hub.folder / name).stat().st_size for name in WEIGHTS)
    whole = pipelines.whole(found)
    assert isinstance(whole, Folder)
    assert (whole.components, whole.pinned, whole.commit) == (found.components, PINNED, COMMIT)
    assert not {"README.md", "whole.safetensors"} & hub.fetched()


@pytest.mark.parametrize("name", [PINNED, TAGGED])
def test_what_is_in_the_cache_needs_no_network(
    hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given a repository that was fetched, then it is found without its hub; a commit is not even asked about."""
    first = pipelines.whole(pipelines.check(name))
    hub.asked.clear()
    source._look.cache_clear()
    assert pipelines.check(PINNED) == first
    assert not hub.asked
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    use(monkeypatch, f"http://127.0.0.1:{port}", tmp_path / "cache")
    assert pipelines.check(name) == first


def test_the_digest_is_the_commits(hub: Hub) -> None:
    """Given a tag or its commit, then the same digest, which is no other folder's."""
    digests = {source_sha256(pipelines.whole(pipelines.check(name))) for name in (PINNED, TAGGED)}
    assert len(digests) == 1
    assert source_sha256(pipelines.check(f"path:{hub.folder}")) not in digests


def test_half_precision_is_preferred(hub: Hub) -> None:
    """Given a component in two variants, one in shards, then that of half precision is fetched, and its own index."""
    place = hub.folder / "text_encoder"
    shards = [f"model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for size, name in enumerate([*shards, "model.ema.safetensors"], 5000):
        write_safetensors(place / name, size)
    (place / "model.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": dict(enumerate(shards))}))
    (place / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00009.safetensors"}}')
    whole = pipelines.whole(pipelines.check(PINNED))
    assert isinstance(whole, Folder)
    assert whole.variant == "fp16"
    names = {name.removeprefix("text_encoder/") for name in hub.fetched() if name.startswith("text_encoder/")}
    assert names == {"config.json", "model.safetensors.index.fp16.json", *shards}


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a connection that is closed in the middle of a file, then the rest is asked for, and the file is whole."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # of 4,080 bytes half arrive, and are written by it
    hub.cuts["vae/model.safetensors"] = 1
    whole = pipelines.whole(pipelines.check(PINNED))
    assert isinstance(whole, Folder)
    assert (whole.path / "vae/model.safetensors").read_bytes() == (hub.folder / "vae/model.safetensors").read_bytes()
    assert ("GET", "/elsewhere/vae/model.safetensors", "bytes=2000-") in hub.asked


def test_an_interrupted_download(hub: Hub) -> None:
    """Given a connection that is reset, then one line says so; run again, only what is missing is fetched."""
    hub.resets = True
    hub.cuts["vae/model.safetensors"] = 1
    assert wrong(PINNED).startswith("the download was interrupted (")
    hub.asked.clear()
    assert isinstance(pipelines.check(PINNED), Repository)
    assert isinstance(pipelines.whole(pipelines.check(PINNED)), Folder)
    assert {path for method, path, _ in hub.asked if method == "GET" and path.startswith("/elsewhere/")} == {
        "/elsewhere/vae/model.safetensors"
    }


def test_a_damaged_file(hub: Hub) -> None:
    """Given a file in the cache that was cut off, then one line says which one to delete, and that is all it takes."""
    whole = pipelines.whole(pipelines.check(PINNED))
    assert isinstance(whole, Folder)
    file = (whole.path / "vae/model.safetensors").resolve()
    file.write_bytes(file.read_bytes()[:-10])
    text = wrong(PINNED)
    assert text.startswith(f"{file}: truncated or overlong: ")
    assert text.endswith("; delete that file and run again with a network")
    file.unlink()
    source._look.cache_clear()
    assert isinstance(pipelines.whole(pipelines.check(PINNED)), Folder)
    assert file.read_bytes() == (hub.folder / "vae/model.safetensors").read_bytes()


@pytest.mark.parametrize("status", [401, 404])
def test_no_such_repository(hub: Hub, status: int) -> None:
    """Given a repository that is missing, or private, then the line says both and how to log in."""
    hub.refuses = status, "RepoNotFound"
    expected = (
        f"{hub.endpoint} has no such repository, or it is private; look at its name, or log in (`hf auth login`, "
    )
    assert wrong(PINNED).startswith(expected)
    assert wrong(TAGGED).startswith(expected)
    assert wrong(f"hub:somebody/else@{COMMIT}").startswith(expected)


def test_a_gated_repository(hub: Hub) -> None:
    """Given a repository whose list may be read and whose files may not, then the line says where to ask for them."""
    hub.gated = True
    assert wrong(PINNED).startswith(
        f"it is gated, and may not be read from here; accept its conditions on {hub.endpoint}/{REPOSITORY} and log in"
    )


@pytest.mark.parametrize("revision", ["v2", COMMIT[::-1]])
def test_no_such_revision(hub: Hub, revision: str) -> None:
    """Given a tag or commit that is none of the repository's, then the line says where they are listed."""
    expected = f"has no such revision; name a commit of {hub.endpoint}/{REPOSITORY}/commits/main, or a tag"
    assert wrong(f"hub:{REPOSITORY}@{revision}") == expected


def test_the_hub_is_down(hub: Hub) -> None:
    """Given an answer that is an error of the hub's own, then its number is said."""
    hub.refuses = 501, ""
    assert wrong(PINNED) == f"{hub.endpoint} answered 501; try again later"


@pytest.mark.parametrize("name", [PINNED, TAGGED])
def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Given a hub that cannot be reached, and an empty cache, then both are said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    use(monkeypatch, f"http://127.0.0.1:{port}", tmp_path / "cache")
    told = wrong(name)
    assert told.startswith(f"is not wholly in {tmp_path / 'cache'}, and http://127.0.0.1:{port} cannot be reached (")
    assert "refused" in told


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given HF_HUB_OFFLINE, then the line says that it is why."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expected = (
        f"is not wholly in {tmp_path / 'cache'}, and HF_HUB_OFFLINE keeps it from being fetched; run once without it"
    )
    assert wrong(PINNED) == expected
    assert not hub.asked


def test_a_disk_that_is_full(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given a disk that fills up while a file is written, then the line names the cache, and how to have another."""
    name = SimpleNamespace(hex="f" * 32)
    found = pipelines.check(PINNED)
    assert isinstance(found, Repository)
    monkeypatch.setattr("huggingface_hub.file_download.uuid.uuid4", lambda: name)
    blobs = next((tmp_path / "cache").glob("models--*/blobs"))
    for weights in WEIGHTS:
        (blobs / f"{etag(hub.folder / weights)}.ffffffff.incomplete").symlink_to("/dev/full")
    with pytest.raises(SourceError) as caught:
        pipelines.whole(found)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    told = f"{PINNED}: the disk of {tmp_path / 'cache'} is full; make room, or set HF_HOME to a folder on another disk"
    assert str(caught.value) == told


def test_a_disk_that_would_be_full(hub: Hub) -> None:
    """Given more to fetch than there is room for, then it is said before anything is fetched."""
    hub.sizes["vae/model.safetensors"] = 2**60
    assert "GiB are to be fetched and the disk of" in wrong(PINNED)
    assert not hub.fetched() & WEIGHTS


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("model_index.json", "has no model_index.json: it is no pipeline of Diffusers"),
        ("vae", "has no folder vae, which its model_index.json names"),
        ("vae/model.safetensors", "vae has no weights as safetensors; name another revision"),
    ],
)
def test_no_pipeline(hub: Hub, gone: str, says: str) -> None:
    """Given a repository without something that a pipeline has, then the line names it, before weights are fetched."""
    path = hub.folder / gone
    path.rename(hub.folder.parent / "gone")
    assert wrong(PINNED) == says
    assert not hub.fetched() & WEIGHTS


def test_formats_that_can_hold_code(hub: Hub) -> None:
    """Given weights that were pickled, then they are not fetched, and the line says why."""
    (hub.folder / "vae/model.safetensors").rename(hub.folder / "vae/model.bin")
    assert wrong(PINNED).startswith("vae has no weights as safetensors, only formats that can hold code;")


def test_a_pipeline_class_that_cannot_be_told(hub: Hub) -> None:
    """Given a class that is in no table, and no part that looks like a denoiser, then it is said, with its parts."""
    index = hub.folder / "model_index.json"
    index.write_text(index.read_text().replace("PixArtSigma", "Some").replace("PixArtTransformer2DModel", "Thing"))
    with pytest.raises(ConfigError, match="SomePipeline is not known, and none of its components looks like a den"):
        pipelines.check(PINNED)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            f"hub:{REPOSITORY}",
            f"hub:{REPOSITORY}: names no revision, and what it holds may change under its name; write ",
        ),
        (
            f"hub:{REPOSITORY}@",
            f"hub:{REPOSITORY}@: names no revision, and what it holds may change under its name; wri",
        ),
        (
            f"hub:{REPOSITORY}@main",
            f"hub:{REPOSITORY}@main: 'main' is a branch, which moves; write hub:OWNER/NAME@REVIS",
        ),
        ("hub:", "hub:: '' is no repository; write hub:OWNER/NAME@REVISION, with a commit or tag"),
        ("hub:a/b/c@1", "hub:a/b/c@1: 'a/b/c' is no repository; write hub:OWNER/NAME@REVISION, with a commit or tag"),
        (
            "somebody/tiny",
            "unknown source 'somebody/tiny', which has no scheme (a repository of a hub is hub:somebody/ti",
        ),
    ],
)
def test_wrong_source(name: str, says: str) -> None:
    """Given no pinned repository, then the line says how to pin one, and no hub is asked."""
    with pytest.raises(QregressError) as caught:
        pipelines.check(name)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("refused", [(404, "RepoNotFound"), (404, "RevisionNotFound"), (403, "GatedRepo"), (501, "")])
def test_the_command_line_says_one_line(hub: Hub, refused: tuple[int, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Given what cannot be fetched, then a command ends with one line, no traceback, and exit code 4."""
    hub.refuses = refused
    assert cli.main(["doctor", PINNED]) == 4
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("\n") == 1
    assert PINNED in out.err


def test_doctor_tells_what_is_missing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a repository that is not fetched, then doctor says its parts, with sizes, and fetches none of them."""
    assert cli.main(["doctor", PINNED]) == 0
    out = capsys.readouterr().out
    size = (hub.folder / "vae/model.safetensors").stat().st_size
    assert f"vae: AutoencoderKL, {size / 2**20:.3f} MiB" in out
    assert "to be fetched" in out
    assert not hub.fetched() & WEIGHTS

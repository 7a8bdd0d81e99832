"""Finished runs, as folders and as archives that somebody else has packed."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from qregress import cli
from qregress.errors import ConfigError
from qregress.record import Timing
from qregress.store import finished
from qregress.store.finished import FinishedRun
from tests.making import make_memory
from tests.store_making import files, matrix_ids, pack, png, rewrite, write_matrix

REFERENCE, FIRST, SECOND = matrix_ids(2)
MIB = 1024**2


def complaint(path: Path) -> str:
    """The one line of a run that cannot be read, opened and read to its end."""
    with pytest.raises(ConfigError) as caught:
        read_all(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def read_all(path: Path) -> dict[str, bytes]:
    """Every record and image of a run."""
    found: dict[str, bytes] = {}
    with FinishedRun(path) as run:
        for result in run.run.cells:
            record = run.record(result.id)
            if record is None:  # its name in the archive is damaged: the verbs say so
                continue
            found |= {f"{record.id}/{name}": run.image(record.id, name) for name in record.images}
    return found


def add(run: Path, target: Path, name: str | zipfile.ZipInfo, data: bytes = b"x") -> Path:
    """A run's archive with one more member."""
    pack(run, target)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return target


@pytest.mark.parametrize("top", ["", "artifact/", "a/b/"])
def test_an_archive_reads_like_its_folder(run: Path, tmp_path: Path, top: str) -> None:
    """Given a run and an archive of it, flat or inside of folders, then both give the same records and images."""
    archive = pack(run, tmp_path / "run.zip", top=top)
    assert read_all(archive) == read_all(run)
    assert len(read_all(run)) == 6


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../outside", "refused: '../outside' points outside of the archive"),
        ("cells/../../outside", "refused: 'cells/../../outside' points outside of the archive"),
        ("/etc/passwd", "refused: '/etc/passwd' points outside of the archive"),
        ("..\\outside", r"refused: '..\\outside' points outside of the archive"),
        ("C:\\Windows\\x", r"refused: 'C:\\Windows\\x' points outside of the archive"),
        ("other/run.json", "holds 2 runs (., other); pack one"),
    ],
)
def test_members_that_are_not_a_runs(run: Path, tmp_path: Path, name: str, says: str) -> None:
    """Given a member that would leave its folder, or a second run, then the archive is refused as a whole."""
    assert complaint(add(run, tmp_path / "run.zip", name)) == says


def test_a_link(run: Path, tmp_path: Path) -> None:
    """Given a symbolic link in an archive, then it is refused."""
    info = zipfile.ZipInfo("cells/link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    assert complaint(add(run, tmp_path / "run.zip", info, b"/etc")) == "refused: 'cells/link' is a link"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive(run: Path, tmp_path: Path, share: float) -> None:
    """Given an archive that ends early, then it says that it is none."""
    archive = pack(run, tmp_path / "run.zip")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    assert complaint(archive).startswith("neither a folder nor a zip archive (")


def test_other_files(tmp_path: Path) -> None:
    """Given a path without a run, then one line says what is expected."""
    (tmp_path / "text").write_text("no archive")
    assert complaint(tmp_path / "text").startswith("neither a folder nor a zip archive (")
    assert complaint(tmp_path / "nowhere").startswith("no such run; name a folder with a run.json")
    assert complaint(tmp_path) == "holds no run.json; name the folder of a run, or a zip archive of it"
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert complaint(tmp_path / "empty.zip").startswith("holds no run.json")


def test_flipped_bits(run: Path, tmp_path: Path) -> None:
    """Given bytes of an archive that are others, then it reads as it was or one line complains: no other error."""
    archive = pack(run, tmp_path / "run.zip")
    whole, content = bytearray(archive.read_bytes()), read_all(archive)
    draw = random.Random(4)  # noqa: S311 - damage, not a secret
    told = 0
    for _ in range(300):
        at = draw.randrange(len(whole)) if draw.random() < 0.5 else draw.randrange(len(whole) - 1500, len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << draw.randrange(8)
        archive.write_bytes(damaged)
        try:
            assert read_all(archive).items() <= content.items(), at
        except ConfigError:
            told += 1
    assert told > 30


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods(run: Path, tmp_path: Path, method: int) -> None:
    """Given a member packed by a method whose few bytes unpack to gigabytes at once, then it is refused."""
    with zipfile.ZipFile(tmp_path / "run.zip", "w", method) as archive:
        for name, data in files(run).items():
            archive.writestr(name, data)
    assert complaint(tmp_path / "run.zip") == "refused: run.json is packed by a method other than deflate"


def bomb(target: Path, run: Path, *, gigabytes: int, member: str, stated: int | None = None) -> Path:
    """An archive with a member of that many zeros, made of one deflated block over and over; ``stated``: its lie."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros, size = bytes(64 * MIB), gigabytes * 1024**3
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    count = size // len(zeros)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files(run).items():
            if name != member:
                archive.writestr(name, data)
        info = zipfile.ZipInfo(member)
        info.compress_type = zipfile.ZIP_STORED
        archive.writestr(info, block + again * (count - 1) + packer.flush())
    packed = bytearray(target.read_bytes())
    local = packed.index(member.encode()) - 30
    central = packed.rindex(b"PK\x01\x02", 0, packed.rindex(member.encode()))
    for method, at in ((local + 8, local + 22), (central + 10, central + 24)):
        struct.pack_into("<H", packed, method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<L", packed, at, min(size if stated is None else stated, 0xFFFFFFFE))
    target.write_bytes(packed)
    return target


READ = """
import resource, sys
from pathlib import Path
from qregress.errors import ConfigError
from qregress.store.finished import FinishedRun
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with FinishedRun(Path(sys.argv[1])) as run:
        for result in run.run.cells:
            record = run.record(result.id)
            for name in record.images:
                run.image(record.id, name)
except ConfigError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def reading(archive: Path) -> tuple[str, int]:
    """What a process says that reads an archive, and by how many MiB it grew."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", READ, str(archive)]
    limited = ["/bin/sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", *command]
    done = subprocess.run(limited, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, grown = done.stdout.splitlines()
    return "\n".join(said), int(grown)


@pytest.mark.parametrize("member", ["run.json", f"cells/{FIRST}/record.json", f"cells/{FIRST}/images/00.png"])
@pytest.mark.parametrize("stated", [None, 1000, 20 * MIB], ids=["honest", "lying", "lying much"])
def test_ten_gigabytes_of_zeros(run: Path, tmp_path: Path, member: str, stated: int | None) -> None:
    """Given a member that unpacks to gigabytes, whatever it states, then one line refuses it and memory stays free."""
    size = 3 if stated is None else 10  # an archive without 64-bit sizes can state no more
    archive = bomb(tmp_path / "run.zip", run, gigabytes=size, member=member, stated=stated)
    assert archive.stat().st_size < 16 * MIB
    said, grown = reading(archive)
    assert len(said.splitlines()) == 1, said
    name = "refused" if stated is None else member
    assert said.startswith(f"{archive}: {name}"), said
    assert grown < 150


def test_an_archive_that_states_too_much(run: Path, tmp_path: Path) -> None:
    """Given members that state more than a run has in all, then the archive is refused before any is read."""
    archive = tmp_path / "run.zip"
    pack(run, archive)
    data = bytearray(archive.read_bytes())
    at = -1
    for _ in range(4):
        at = data.index(b"PK\x01\x02", at + 1)
        struct.pack_into("<L", data, at + 24, 0xFFFFFFFE)
    archive.write_bytes(data)
    assert complaint(archive) == "refused: unpacks to 16.000 GiB, and no run to over 8.000 GiB"


def test_ids_that_leave_the_folder(run: Path) -> None:
    """Given a run.json whose cell is a path out of it, then it is refused."""
    for cell in ("../../x", "/etc/a/b", "pixart/../bs1", "pixart/s00", "a/b/c/d", "a/b/c\n", "a/b/", ""):
        value = json.loads((run / "run.json").read_bytes())
        value["cells"][1]["id"] = cell
        (run / "run.json").write_text(json.dumps(value))
        says = f"{cell!r} is no cell's id; the run's files are not what a run writes"
        assert complaint(run) == says


def test_the_record_of_another_cell(run: Path) -> None:
    """Given a record under another cell's path, or whose parts say another cell, then it is refused."""
    shutil.copy(run / "cells" / SECOND / "record.json", run / "cells" / FIRST / "record.json")
    assert complaint(run) == f"cells/{FIRST}/record.json is the record of {SECOND!r}"
    shutil.copy(run / "cells" / REFERENCE / "record.json", run / "cells" / FIRST / "record.json")
    path = run / "cells" / FIRST / "record.json"
    path.write_text(path.read_text().replace(f'"id": "{REFERENCE}"', f'"id": "{FIRST}"'))
    assert complaint(run) == f"cells/{FIRST}/record.json is the record of {FIRST!r}"


@pytest.mark.parametrize(
    "name", ["../../../../etc/passwd", "/etc/passwd", "images/../../record.json", "images/x.png", "a\\b.png", ""]
)
def test_images_named_outside(run: Path, name: str) -> None:
    """Given a record that names an image outside of its cell, then it is refused."""
    rewrite(run, FIRST, images=(name,))
    assert complaint(run) == f"{FIRST}/{name} is no name of an image that a run writes"


def test_a_missing_image(run: Path) -> None:
    """Given a run without one of its images, then it is named."""
    (run / "cells" / FIRST / "images" / "01.png").unlink()
    assert complaint(run) == f"cells/{FIRST}/images/01.png is missing; take the run's whole folder"


def chunked(width: int, height: int, data: bytes) -> bytes:
    """A PNG of that size, whatever its data is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">L", zlib.crc32(kind + content))
        return struct.pack(">L", len(content)) + kind + content + check

    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        png(1)[:-30],
        png(1)[:60] + b"\x00" + png(1)[61:],
        chunked(60000, 60000, b""),
        chunked(12000, 12000, b""),
        chunked(16, 16, b"short"),
        b"GIF89a" + bytes(20),
    ],
    ids=["empty", "text", "truncated", "flipped", "bomb", "small bomb", "short", "gif"],
)
def test_a_damaged_image(run: Path, data: bytes) -> None:
    """Given an image that cannot be decoded, or not safely, then it is named."""
    (run / "cells" / FIRST / "images" / "01.png").write_bytes(data)
    assert complaint(run).startswith(f"cells/{FIRST}/images/01.png is no image that can be read: ")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "run.json: not what qregress wrote: Input data was truncated"),
        (b"[]", "run.json: not what qregress wrote: no schema version of qregress in it (found None)"),
        (b'{"schema": true}', "run.json: not what qregress wrote: no schema version"),
        (b'{"schema": 99}', "run.json: not what qregress wrote: written by a newer qregress: schema 99"),
        (b'{"schema": 2}', "run.json: not what qregress wrote: Object missing required field `started`"),
        (b"\xff\xfe", "run.json: not what qregress wrote: "),
        (b'{"a":' * 100_000, "run.json: not what qregress wrote: "),
        (b'{"schema": 1' + b"0" * 5000 + b"}", "run.json: not what qregress wrote: "),
    ],
)
def test_a_damaged_run(run: Path, data: bytes, says: str) -> None:
    """Given a run.json that is none, then one line says what is wrong."""
    (run / "run.json").write_bytes(data)
    assert complaint(run).startswith(says)


def test_lists_of_other_lengths(run: Path) -> None:
    """Given a record whose paired lists are no pairs, then it is refused: every comparison would break at it."""
    with FinishedRun(run) as opened:
        record = opened.record(FIRST)
    assert record is not None
    assert record.timing is not None
    rewrite(run, FIRST, timing=type(record.timing)(samples_s=(1.0,), reference_s=(1.0, 1.0)))
    assert complaint(run) == f"cells/{FIRST}/record.json: not what qregress wrote: its lists are not of one length"


def test_a_huge_file_in_a_folder(run: Path) -> None:
    """Given a JSON file beyond all measure, then it is refused by its size and not read."""
    with (run / "run.json").open("ab") as stream:
        stream.truncate(finished.LARGEST_JSON + 1)
    assert complaint(run) == "refused: run.json has 32.000 MiB, and no such file over 32.000 MiB"


@pytest.mark.parametrize("verb", [["accept", "--reason=x"], ["judge"]], ids=["accept", "judge"])
def test_verbs_end_with_one_line(
    verb: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given archives that are refused, when a verb reads them, then it says so in one line, with 4, writing nothing."""
    write_matrix(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archives").mkdir()
    archives = [
        add(run, tmp_path / "archives" / "outside.zip", "../outside"),
        add(run, tmp_path / "archives" / "two.zip", "other/run.json"),
        bomb(tmp_path / "archives" / "bomb.zip", run, gigabytes=3, member="run.json", stated=1000),
    ]
    rewrite(run, REFERENCE, images=("../x.png",))
    if verb[0] == "accept":
        archives.append(pack(run, tmp_path / "archives" / "images.zip"))
    before = set(files(tmp_path))
    for archive in archives:
        assert cli.main([verb[0], str(archive), *verb[1:]]) == 4
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert err.startswith(f"ERROR: {archive}: ")
    assert set(files(tmp_path)) == before


@pytest.mark.parametrize("change", ["seconds", "reference", "busy", "bytes"])
def test_nothing_takes_no_time_or_memory(change: str, run: Path) -> None:
    """Given a record whose seconds or bytes are zero, by which others are divided, then it is refused."""
    timings = {
        "seconds": Timing(samples_s=(1.0, 0.0), reference_s=(1.0, 1.0)),
        "reference": Timing(samples_s=(1.0,), reference_s=(0.0,)),
        "busy": Timing(samples_s=(1.0,), reference_s=(1.0,), busy_s=(0.0,), reference_busy_s=(1.0,)),
    }
    if change in timings:
        rewrite(run, FIRST, timing=timings[change])
    else:
        rewrite(run, FIRST, memory=make_memory(0))
    says = "not what qregress wrote: seconds or bytes that are not above zero"
    assert complaint(run) == f"cells/{FIRST}/record.json: {says}"

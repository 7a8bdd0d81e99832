"""Which cells of an earlier part of a run stand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qregress import machine
from qregress.matrix import REFERENCE, Cell, Setting
from qregress.store.resume import Earlier, why_not
from qregress.store.run import RunFolder
from tests.making import make_acceptable, make_cell, make_fingerprint


def reference_of(cell: Cell) -> Cell:
    """The cell that it is held against."""
    return msgspec.structs.replace(cell, setting=Setting(name=REFERENCE))


def test_a_reference_that_this_run_has_made_stays(tmp_path: Path) -> None:
    """Given a cell whose item comes before its reference's, then what both have left is cleared once."""
    folder, cell = RunFolder(tmp_path), make_cell()
    reference = reference_of(cell)
    for each in (reference, cell):
        folder.write_record(make_acceptable(each.id, status="crashed"))
    earlier = Earlier(folder, "cpu")
    assert earlier.standing(cell) is None
    assert folder.record(reference.id) is None
    assert folder.record(cell.id) is None
    assert earlier.why_not(cell) == "its reference is run again"
    for each in (reference, cell):  # made by the worker, reference first
        folder.write_record(make_acceptable(each.id))
    assert earlier.standing(reference) is None
    assert folder.record(reference.id) is not None


def test_nothing_is_said_of_what_was_not_there(tmp_path: Path) -> None:
    """Given cells that were never run, then they do not stand, and no reason is told."""
    earlier, cell = Earlier(RunFolder(tmp_path), "cpu"), make_cell()
    assert earlier.standing(cell) is None
    assert earlier.why_not(cell) is None


@pytest.mark.parametrize(
    ("there", "here", "stands"),
    [
        ("NVIDIA H100", "NVIDIA H100", True),
        ("NVIDIA H100 PCIe", "NVIDIA H100", False),
        ("NVIDIA GeForce RTX 3080 Ti", "NVIDIA GeForce RTX 3080", False),
        ("NVIDIA H100", "", False),
        ("Intel Xeon Processor (Skylake, IBRS) (AVX512)", "Intel Xeon Processor (Skylake, IBRS)", True),
        ("Intel Xeon Processor (Skylake, IBRS) (AVX512)", "Intel Xeon Processor", False),
    ],
)
def test_another_gpu(there: str, here: str, *, stands: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a GPU whose name only begins like the other's, or that nobody can name, then its records do not count."""
    fingerprint = make_fingerprint(device_class="cuda-nvidia-h100-79gib", name=there)
    monkeypatch.setattr(machine, "device_name", lambda _: here)
    monkeypatch.setattr(machine, "versions", lambda _: fingerprint.packages)
    cell = make_cell()
    pipeline = msgspec.structs.replace(cell.pipeline, source="pocket:pixart-sigma")
    cell = msgspec.structs.replace(cell, pipeline=pipeline)
    why = why_not(make_acceptable(fingerprint=fingerprint), cell, fingerprint.device)
    assert (why is None or not why.startswith("it ran on")) == stands


def test_an_upgrade_of_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given another torchao or driver than before, then it is named."""
    fingerprint = make_fingerprint()
    now = fingerprint.packages | {"torchao": "99", machine.DRIVER: "600"}
    monkeypatch.setattr(machine, "versions", lambda _: now)
    why = why_not(make_acceptable(fingerprint=fingerprint), make_cell(), fingerprint.device)
    assert why == "another version of nvidia-driver, torchao"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "its record cannot be read: Input data was truncated"),
        ('{"schema": 99}', "its record cannot be read: "),
        ('{"schema": 2}', "its record cannot be read: "),
    ],
)
def test_a_record_that_cannot_be_read(text: str, says: str, tmp_path: Path) -> None:
    """Given what a power failure or another version has left, then that cell is run again, and the reason is told."""
    folder, cell = RunFolder(tmp_path), make_cell()
    folder.write_record(make_acceptable(reference_of(cell).id))
    path = folder.cell(cell.id) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    earlier = Earlier(folder, "cpu")
    earlier._why_not[reference_of(cell).id] = None  # it stands
    assert earlier.standing(cell) is None
    assert str(earlier.why_not(cell)).startswith(says)
    assert not path.exists()

"""Runs on GPUs that are kept beside their configurations: judged again here, where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from qregress import cli, config
from qregress.judge.verdict import judge
from qregress.matrix import reference_of
from qregress.record import Run, read
from qregress.store.finished import FinishedRun
from studies import published

STUDIES = Path(__file__).parents[2] / "studies"
#: Archive -> configuration that judges it.
KEPT = {"cuda-h100.zip": "cuda.toml", "published-h200.zip": "published.toml"}


@pytest.mark.parametrize("name", KEPT)
def test_nothing_fails_but_what_is_waived(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a kept run, when it is judged under today's limits, then all is green; float8 on CUDA alone is waived."""
    path, out = STUDIES / "runs" / name, tmp_path / "run.json"
    assert cli.main(["judge", str(path), f"--config={STUDIES / KEPT[name]}", f"--json={out}"]) == 0, capsys.readouterr()
    cells = read(out, Run).cells
    with FinishedRun(path) as run:
        assert [cell.id for cell in cells] == [cell.id for cell in run.run.cells]
    assert {cell.id for cell in cells} <= {cell.id for cell in config.load(STUDIES / KEPT[name]).cells()}
    waived = {cell.id for cell in cells if cell.verdict == "waived"}
    assert waived == {cell.id for cell in cells if cell.setting.startswith("float8")}
    assert {cell.verdict for cell in cells if cell.id not in waived} == {"pass"}


def test_the_study_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Given the study's kept run, then its page has the tables that are made of it."""
    published.main(str(STUDIES / "runs" / "published-h200.zip"))
    assert capsys.readouterr().out in (STUDIES.parent / "docs" / "study.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("rows", published.PUBLISHED.values(), ids=published.PUBLISHED)
def test_memory_is_what_the_study_published(rows: tuple[published.Row, ...]) -> None:
    """Given the kept run, then static memory is within 1.5 % or 0.10 GiB of the published figure, row by row."""
    with FinishedRun(STUDIES / "runs" / "published-h200.zip") as run:
        for row in rows:
            record = run.record(row.cell)
            if record is not None and record.memory is not None:
                off = abs(record.memory.static_bytes / 2**30 - row.memory)
                assert off <= max(0.015 * row.memory, 0.10), row.cell


def test_the_fault_is_told_without_its_waiver() -> None:
    """Given the H100's records without waivers, then each float8 cell fails by a kernel that lacks its bias."""
    with FinishedRun(STUDIES / "runs" / "cuda-h100.zip") as run:
        for found in run.run.cells:
            record = run.record(found.id)
            assert record is not None
            checks = {check.name: check for check in judge(record, run.record(reference_of(found.id)), {}).checks}
            if found.setting == "float8":
                assert checks["kernel.fidelity"].verdict == "fail"
                assert "MarlinF8QBytesTensor, float16" in checks["kernel.fidelity"].why
                assert "minus the bias: it is not added" in checks["kernel.fidelity"].why
            elif found.setting != "reference":
                assert checks["kernel.fidelity"].verdict == "pass"

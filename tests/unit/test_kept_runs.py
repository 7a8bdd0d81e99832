"""Runs on GPUs that are kept beside their configurations: judged again here, where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from qregress import cli, config
from qregress.judge.verdict import judge
from qregress.matrix import reference_of
from qregress.record import Run, read
from qregress.store.finished import FinishedRun

STUDIES = Path(__file__).parents[2] / "studies"
#: Archive -> configuration that judges it.
KEPT = {"cuda-h100.zip": "cuda.toml"}


@pytest.mark.parametrize("name", KEPT)
def test_nothing_fails_but_what_is_waived(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a kept run, when it is judged under today's limits, then all is green; float8 on CUDA alone is waived."""
    path, out = STUDIES / "runs" / name, tmp_path / "run.json"
    assert cli.main(["judge", str(path), f"--config={STUDIES / KEPT[name]}", f"--json={out}"]) == 0, capsys.readouterr()
    cells = read(out, Run).cells
    assert len(cells) == len(config.load(STUDIES / KEPT[name]).cells())
    assert {cell.setting for cell in cells if cell.verdict == "waived"} == {"float8"}
    assert {cell.verdict for cell in cells if cell.setting != "float8"} == {"pass"}


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

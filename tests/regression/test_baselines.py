"""Given baselines of healthy libraries, when what budgets do not see changes, then the right comparison is red."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qregress import cli, config
from qregress.produce.bench import Bench
from qregress.produce.protocol import Options
from qregress.store.run import RunFolder
from tests.regression.harness import FREEZE, HEAD, Finished, Overlay, Runner

REFERENCE, INT8 = "pixart-sigma/reference/bs1", "pixart-sigma/int8/bs1"
#: The embedded matrix's own budgets of int8; one pair decides no latency, so there is no budget of it.
CONFIG = """
[settings.int8]
weights = { transformer = "int8" }
[budgets]
lpips = 0.0005
lpips_worst = 0.001
clip_drop = 0.002
memory = "0.87x"
"""
PROMPTS = 2

#: One of 87 layers, its scales 2 % too large. On 2 cores of an AMD EPYC, torch 2.15.0, two prompts: mean LPIPS 0.00018
#: and worst 0.00029 are within the budgets, even below the healthy mean of 0.00020; the final latents' distance is
#: 0.0261, where healthy int8 has 0.0195 and may have 0.0226.
WRONG_SCALES = f"""{FREEZE}            if name == "pos_embed.proj":
                m.weight._scale.mul_(1.02)
"""
HEALTHY = "return (images * 0.5 + 0.5).clamp(0, 1)"
#: Every image of every cell loses contrast after decoding: hardly a distance between cell and reference changes. 2 %
#: moved the reference by 1.44 levels of 8 bits, where 1.01 is allowed (its noise floor is 0.17); this is twice that.
PALE = "return (images * 0.48 + 0.5).clamp(0, 1)"


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Baselines of the reference and int8, accepted from a run of healthy libraries."""
    folder = tmp_path_factory.mktemp("accepted")
    finished = Runner(folder)(CONFIG, count=PROMPTS, store="images")
    assert finished.code == 0, finished.output
    assert "2 cells NOT compared with a baseline: no baselines in baselines/" in finished.output
    assert f"qregress accept {folder / 'out'} --reason …" in finished.output
    baselines = folder / "baselines"
    options = [f"--config={folder / 'matrix.toml'}", f"--baselines={baselines}", "--reason=healthy"]
    code = cli.main(["accept", str(folder / "out"), *options])
    assert code == 0
    return baselines


def compared(run_qregress: Runner, accepted: Path, overlay: Path | None = None) -> Finished:
    """The same matrix again, held against the baselines."""
    return run_qregress(CONFIG, f"--baselines={accepted}", count=PROMPTS, store="images", overlay=overlay)


def verdicts(finished: Finished) -> dict[str, dict[str, str]]:
    """Cell id -> check -> verdict; latency is timed too few times here to be decided."""
    return {
        cell.id: {check.name: check.verdict for check in cell.checks if check.name != "regression.latency"}
        for cell in finished.run.cells
    }


def test_the_same_again(run_qregress: Runner, accepted: Path) -> None:
    """Nothing has changed: every comparison is made, and passes."""
    finished = compared(run_qregress, accepted)
    assert finished.code == 0, finished.output
    names = ("quality.sanity", "quality.lpips", "quality.clip_drop", "coverage.manifest", "kernel.fidelity")
    budgets = dict.fromkeys([*names, "memory.static"], "pass")
    comparisons = dict.fromkeys(
        [f"regression.{name}" for name in ("lpips", "clip", "latents", "memory", "coverage")], "pass"
    )
    assert verdicts(finished) == {
        REFERENCE: dict.fromkeys(["quality.sanity", "drift.reference", "regression.clip", "regression.memory"], "pass"),
        INT8: budgets | comparisons,
    }
    drift = next(check for check in finished.run.cells[0].checks if check.name == "drift.reference")
    assert drift.why == "the accepted images, bit by bit"


def test_a_change_within_every_budget(run_qregress: Runner, accepted: Path, overlay: Overlay) -> None:
    """One layer's scales 2 % too large: all budgets are green, and the comparison with what was accepted is red."""
    path = overlay.replace("optimum.quanto", "quantize.py", FREEZE, WRONG_SCALES)
    finished = compared(run_qregress, accepted, path)
    assert finished.code == 1, finished.output
    failed = finished.failed_checks()
    assert set(failed) == {INT8}, finished.output
    assert "regression.latents" in failed[INT8]
    assert {name.partition(".")[0] for name in failed[INT8]} == {"regression"}, finished.output


def test_the_reference_itself_moved(run_qregress: Runner, accepted: Path, overlay: Overlay) -> None:
    """Paler images of everything are as near to their reference as ever: only the accepted images tell."""
    path = overlay.replace("diffusers", "image_processor.py", HEALTHY, PALE)
    finished = compared(run_qregress, accepted, path)
    assert finished.code == 1, finished.output
    failed = finished.failed_checks()
    assert failed[REFERENCE] == ["drift.reference"], finished.output
    assert "the unquantized images moved by" in finished.output
    assert verdicts(finished)[INT8]["regression.latents"] == "pass"


def test_noise_of_a_reference_that_another_process_ran(tmp_path: Path) -> None:
    """A reference's own process is gone, as after a crash: its noise is measured against the files that it left."""
    head = HEAD.format(pipeline="pixart-sigma", steps="", deadline="1 min", pairs=1, count=2, store="images")
    (tmp_path / "qregress.toml").write_text(head)
    cell = config.load(tmp_path / "qregress.toml").cells()[0]
    quick = msgspec.structs.replace(cell, workload=msgspec.structs.replace(cell.workload, steps=2))
    folder = RunFolder(tmp_path / "out")
    options = Options(device="cpu", out=str(folder.root), lpips="st-alex", clip="pocket", pairs=1, time_s=0.001)
    Bench(quick.pipeline, options, lambda _: None).run(quick, ())
    other = Bench(quick.pipeline, options, lambda _: None)
    other.run(quick, ())
    other.measure_noise(quick)
    record = folder.record(REFERENCE)
    assert record is not None
    assert record.noise is not None
    assert [variant.pixels for variant in record.noise.variants if variant.name == "again"] == [(0.0, 0.0)]

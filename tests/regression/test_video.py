"""Videos in a real worker: a Latte of the pocket PixArt-Sigma's weights, from a folder through a factory."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import msgspec
import pytest
from PIL import Image

from qregress.judge.verdict import judge
from qregress.record import Check, Record
from qregress.store.accept import accept
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from qregress.store.history import history
from qregress.store.run import RunFolder
from tests.regression.harness import Finished
from tests.store_making import REASON, cells_of
from tests.video_making import make_latte

REFERENCE, INT8 = "latte/reference/bs1", "latte/int8/bs1"
PROMPTS, FRAMES, SIDE = 2, 3, 128
SCORES = ("lpips", "clip", "latents", "motion")
#: Measured on 2 cores with AVX2, torch 2.14.1: mean LPIPS 0.0017, motion 0.13 for both prompts, memory 0.794.
CONFIG = """
[settings.int8]
weights = { transformer = "int8" }
[workloads.bs1]
prompts = "builtin"
count = 2
steps = 4
[budgets]
lpips = 0.02
motion = 0.4
memory = "0.85x"
[baselines]
store = "none"               # no noise floor is measured, which takes longer than the run
[run]
latency_pairs = 1
latency_time = "1 ms"
"""
#: The number of frames is what the denoiser was made for, where the pipeline's own default is 16.
CONFTEST = """
import qregress

CALL = {"guidance_scale": 3.0, "clean_caption": False, "mask_feature": False}

@qregress.pipeline("latte", components=["transformer", "text_encoder"], call=CALL)
def latte(dtype, device):
    from pathlib import Path

    from qregress import pipelines

    pipeline = pipelines.load(f"path:{Path(__file__).parent / 'latte'}", str(dtype).removeprefix("torch."), device)
    pipeline.transformer.temp_pos_embed.zero_()
    return pipeline
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of both cells, without baselines."""
    folder = tmp_path_factory.mktemp("video")
    make_latte(frames=FRAMES).save_pretrained(folder / "latte")
    (folder / "qregress.toml").write_text(CONFIG)
    (folder / "conftest.py").write_text(CONFTEST)
    done = subprocess.run(
        [sys.executable, "-m", "qregress", "run"],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Finished(done.returncode, done.stdout + done.stderr, RunFolder(folder / ".qregress" / "latest"))


def record(finished: Finished, cell: str) -> Record:
    """What a cell left."""
    found = finished.folder.record(cell)
    assert found is not None, finished.output
    return found


def test_verdicts(finished: Finished) -> None:
    """Videos are judged frame by frame and by their motion, and the number of it is in run.json."""
    assert finished.code == 0, finished.output
    passed = ("quality.sanity", "quality.lpips", "quality.motion", "coverage.manifest", "kernel.fidelity")
    result = finished.run.cells[1]
    assert result.id == INT8
    assert {check.name: check.verdict for check in result.checks} == dict.fromkeys([*passed, "memory.static"], "pass")
    assert result.scores["motion"] is not None
    assert 0 < result.scores["motion"] < 1
    assert len(result.images) == PROMPTS * FRAMES


@pytest.mark.parametrize("cell", [REFERENCE, INT8])
def test_what_a_video_cell_leaves(finished: Finished, cell: str) -> None:
    """Its frames are numbered through; scores of images have an entry for each frame, of videos for each prompt."""
    found = record(finished, cell)
    assert (found.frames, len(found.prompts), found.repeatable) == (FRAMES, PROMPTS, True)
    assert found.images == tuple(f"images/{index:02d}.png" for index in range(PROMPTS * FRAMES))
    pictures = {(finished.folder.cell(cell) / name).read_bytes() for name in found.images}
    assert len(pictures) == PROMPTS * FRAMES
    assert found.scores is not None
    assert len(found.scores.clip) == PROMPTS * FRAMES
    if cell == INT8:
        assert found.scores.motion
        assert len(found.scores.lpips) == PROMPTS * FRAMES
        assert len(found.scores.motion) == len(found.scores.latents) == PROMPTS


def test_the_sheet_has_three_strips_for_each_video(finished: Finished) -> None:
    """The reference's sheet has one strip where the cell's has three, of the same width."""
    alone, compared = (Image.open(finished.folder.cell(cell) / "sheet.png").size for cell in (REFERENCE, INT8))
    assert alone[0] == compared[0] > FRAMES * SIDE
    assert compared[1] - alone[1] == PROMPTS * 2 * (SIDE + 2)


@pytest.fixture(scope="module")
def accepted(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The run's cells, accepted."""
    store = Store(tmp_path_factory.mktemp("accepted") / "baselines")
    with FinishedRun(finished.folder.root) as run:
        accept(store, run, cells_of(finished.folder.root), REASON)
    return store


def held(finished: Finished, store: Store, record: Record) -> dict[str, Check]:
    """A record held against what was accepted, without what was timed too few times here to be decided."""
    with FinishedRun(finished.folder.root) as run:
        past = history(store, record, partial(run.image, record.id))
        found = judge(record, None, {}, history=past).checks
    compared = (check for check in found if check.name.startswith(("regression", "drift")))
    return {check.name: check for check in compared if check.name != "regression.latency"}


def test_the_same_again(finished: Finished, accepted: Store) -> None:
    """What was accepted passes against itself, motion and the reference's frames too."""
    names = [*(f"regression.{name}" for name in SCORES), "regression.memory", "regression.coverage"]
    for cell, expected in ((INT8, names), (REFERENCE, ["drift.reference", "regression.clip", "regression.memory"])):
        found = held(finished, accepted, record(finished, cell))
        assert {name: check.verdict for name, check in found.items()} == dict.fromkeys(expected, "pass")


def test_a_video_that_stands_still(finished: Finished, accepted: Store) -> None:
    """A prompt whose video does not move any more fails against what was accepted, and is named; nothing else fails."""
    now = record(finished, INT8)
    assert now.scores is not None
    assert now.scores.motion
    scores = msgspec.structs.replace(now.scores, motion=(now.scores.motion[0], 1.0))
    found = held(finished, accepted, msgspec.structs.replace(now, scores=scores))
    assert [name for name, check in found.items() if check.verdict == "fail"] == ["regression.motion"]
    assert found["regression.motion"].why.endswith(f"for prompt {now.prompts[1]!r}")


def test_one_frame_that_is_worse(finished: Finished, accepted: Store) -> None:
    """A frame that is much further away than it was fails, and is named with its prompt."""
    now = record(finished, INT8)
    assert now.scores is not None
    scores = msgspec.structs.replace(now.scores, lpips=(*now.scores.lpips[:4], 0.9, now.scores.lpips[5]))
    found = held(finished, accepted, msgspec.structs.replace(now, scores=scores))
    assert [name for name, check in found.items() if check.verdict == "fail"] == ["regression.lpips"]
    assert found["regression.lpips"].why.endswith(f"for prompt {now.prompts[1]!r}, frame 1")


def test_a_reference_that_plays_backwards(finished: Finished, accepted: Store) -> None:
    """The same frames in another order have drifted: each is held against the accepted one at its place."""
    now = record(finished, REFERENCE)
    images = tuple(now.images[index] for index in (2, 1, 0, 5, 4, 3))
    backwards = msgspec.structs.replace(now, images=images, images_sha256="0" * 64)
    found = held(finished, accepted, backwards)["drift.reference"]
    assert found.verdict == "fail"
    assert found.value is not None
    assert found.worst is not None
    assert found.worst > found.value > 1

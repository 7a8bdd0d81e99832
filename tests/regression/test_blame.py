"""Given a library that damages the scales of one block, when a cell fails by it, then the report names that block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import UNSET

from qregress import config
from tests.regression.harness import FREEZE

if TYPE_CHECKING:
    from pathlib import Path

    from qregress.record import Blame
    from tests.regression.harness import Finished, Overlay, Runner

#: A loss shows as well after six steps as after the pipelines' own.
STEPS: dict[str, Any] = {"count": 2, "steps": 6}


def damaged(overlay: Overlay, block: str, factor: str = "1.1") -> Path:
    """The import path of a library in which the weight scales of one block are too large by a factor."""
    wrong = f'{FREEZE}            if name.startswith("{block}."):\n                m.weight._scale.mul_({factor})\n'
    return overlay.replace("optimum.quanto", "quantize.py", FREEZE, wrong)


def matrix(pipeline: str, *components: str) -> str:
    """One setting of 8 bits for some components, held against LPIPS as the embedded matrix holds it."""
    weights = ", ".join(f'{name} = "int8"' for name in components)
    limit = config.load(config.embedded_path()).budgets.of(f"{pipeline}/int8/bs1")["lpips"].value
    return f"[settings.int8]\nweights = {{ {weights} }}\n[budgets]\nlpips = {limit}\n"


def blamed(finished: Finished, pipeline: str) -> Blame:
    """What the cell's record says, which the report says too."""
    cell = f"{pipeline}/int8/bs1"
    assert "quality.lpips" in finished.failed_checks()[cell], finished.output
    record = finished.folder.record(cell)
    assert record is not None
    assert record.blame is not UNSET, finished.output
    assert f"{cell}: blame: {record.blame.component} carries" in finished.output
    return record.blame


@pytest.mark.parametrize(
    ("pipeline", "block"),
    [
        ("pixart-sigma", "transformer_blocks.4"),
        ("sd3", "transformer_blocks.2"),
        ("aura-flow", "single_transformer_blocks.2"),
    ],
)
def test_a_damaged_block_is_named(pipeline: str, block: str, run_qregress: Runner, overlay: Overlay) -> None:
    """Given one block of a denoiser with scales too large, then it carries the loss, and its neighbours do not."""
    finished = run_qregress(
        matrix(pipeline, "transformer"), pipeline=pipeline, overlay=damaged(overlay, block), **STEPS
    )
    assert finished.code == 1, finished.output
    found = blamed(finished, pipeline)
    first, second, *_ = found.blocks
    assert (found.component, first.name) == ("transformer", block)
    assert found.share(first) > 0.5
    assert found.share(second) < 0.25
    assert f"of transformer, {block} with" in finished.output


def test_a_damaged_encoder_is_told_from_the_denoiser(run_qregress: Runner, overlay: Overlay) -> None:
    """Given one block of the text encoder with scales too large, then the denoiser beside it is cleared."""
    pipeline, block = "pixart-sigma", "encoder.block.1"
    path = damaged(overlay, block, "2")
    finished = run_qregress(matrix(pipeline, "transformer", "text_encoder"), pipeline=pipeline, overlay=path, **STEPS)
    assert finished.code == 1, finished.output
    found = blamed(finished, pipeline)
    assert [part.name for part in found.components] == ["text_encoder", "transformer"]
    assert found.share(found.components[1]) < 0.25
    assert found.blocks[0].name == block
    assert found.share(found.blocks[0]) > 0.5

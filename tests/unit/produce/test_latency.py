"""The latency pass: which calls are made, and what becomes the cell's images."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline

from qregress.matrix import Workload
from qregress.produce.generate import Generated, join
from qregress.produce.latency import Calls, Passed, latency_pass
from qregress.produce.protocol import Options
from qregress.produce.timing import Spent

WORKLOAD = Workload(name="w", prompts=("a", "b", "c", "d", "e"), batch_size=1)


def made(level: int) -> Generated:
    """One image of one colour."""
    return Generated(
        images=torch.full((1, 3, 8, 8), level, dtype=torch.uint8),
        finite=torch.tensor([True]),
        latents=torch.full((1, 4, 1, 1), float(level)),
        trajectory=torch.zeros(1, 1, 4, 1, 1),
    )


EXPECTED = join([made(100 + index) for index in range(5)])


class Pipeline(Calls):
    """Draws a level for each prompt, and remembers which it was asked for; it has no stages."""

    def __init__(self, base: int, wrong: int | None = None) -> None:
        super().__init__(DiffusionPipeline(), lambda batch, _: self(batch), "cpu")
        self.base, self.wrong = base, wrong
        self.asked: list[int] = []

    def __call__(self, batch: range) -> Generated:
        """One call."""
        self.asked += batch
        off = 1 if self.wrong in batch else 0
        return join([made(self.base + index + off) for index in batch])


def run(cell: Pipeline, reference: Pipeline, workload: Workload = WORKLOAD, pairs: int = 2) -> Passed:
    """With two pairs, and no time for more."""
    options = Options(device="cpu", out="", lpips="st-alex", clip="pocket", pairs=pairs, time_s=0.0)
    return latency_pass(cell, reference, EXPECTED, workload, options, (), lambda _done, _total: None, Spent())


def test_every_prompt_is_drawn_and_the_reference_only_timed() -> None:
    """Given fewer pairs than prompts, then the cell draws all in their order, the reference as many as are timed."""
    cell, reference = Pipeline(10), Pipeline(100)
    passed = run(cell, reference)
    assert reference.asked == [0, 1]
    assert cell.asked == [0, 1, 2, 3, 4]
    assert passed.made.images[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14]
    assert len(passed.timing.samples_s) == len(passed.timing.reference_s) == len(reference.asked)
    assert passed.repeatable
    assert passed.reference_repeatable


def test_more_pairs_than_prompts() -> None:
    """Given more pairs than prompts, then they are drawn again, and must come out the same."""
    cell = Pipeline(10)
    passed = run(cell, Pipeline(100), pairs=7)
    assert cell.asked == [0, 1, 2, 3, 4, 0, 1]
    assert passed.made.images[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14]


def test_a_reference_that_is_another_now() -> None:
    """Given a timed prompt that the reference draws otherwise than alone, then that is said; of others nobody knows."""
    assert not run(Pipeline(10), Pipeline(100, wrong=1)).reference_repeatable
    assert run(Pipeline(10), Pipeline(100, wrong=4)).reference_repeatable


def test_the_rest_of_a_batch() -> None:
    """Given a last batch that is not full, then it is drawn and not timed: it takes less time."""
    workload = Workload(name="w", prompts=WORKLOAD.prompts, batch_size=2)
    cell, reference = Pipeline(10), Pipeline(100)
    passed = run(cell, reference, workload)
    assert (cell.asked, reference.asked) == ([0, 1, 2, 3, 4], [0, 1, 2, 3])
    assert passed.made.images[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14]

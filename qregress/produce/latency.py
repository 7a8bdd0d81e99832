"""The latency pass: calls of the cell and of its reference in turn; it makes the cell's images."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from diffusers import DiffusionPipeline
from msgspec import UNSET, UnsetType

from qregress.matrix import Workload
from qregress.produce.disturbance import disturbances
from qregress.produce.generate import Generated, OnStep, call_until, join
from qregress.produce.profiling import Beginning, busy_pairs
from qregress.produce.protocol import Options
from qregress.produce.stages import Marks, typical, watched
from qregress.produce.timing import Spent, interleave
from qregress.produce.variant import denoisers
from qregress.record import Stages, Timing


class Calls:
    """Calls of one pipeline, whose stages are marked."""

    def __init__(
        self, pipeline: DiffusionPipeline, call: Callable[[range, OnStep | None], Generated], device: str
    ) -> None:
        self._pipeline = pipeline
        self._call = call
        self._device = device
        self._marks: list[Marks] = []

    def __call__(self, batch: range) -> Generated:
        """One call for some prompts."""
        with watched(self._pipeline, self._device) as marks:
            made = self._call(batch, marks.on_step)
        self._marks.append(marks)
        return made

    def beginning(self, batch: range) -> Beginning:
        """Calls that end early, still to be made; one to the end must have been made.

        Of a pipeline with several denoisers they do not: which of them is called first is not what they all do.
        """

        def until(step: int, on_step: OnStep) -> bool:
            whole = len(denoisers(self._pipeline)) > 1

            def enough(done: int) -> bool:
                on_step(done)
                return done >= step and not whole

            return call_until(self._pipeline, lambda watched: self._call(batch, watched), enough)

        return Beginning(until, max((marks.steps for marks in self._marks), default=0))

    @property
    def stages(self) -> Stages | UnsetType:
        """The low quantile of each, of all calls that were not ended early; the device must have been waited for."""
        return typical(self._marks) or UNSET


class Passed(msgspec.Struct, frozen=True):
    """What the pass gave.

    ``repeatable``: repeated calls of the cell gave the same bits. ``reference_repeatable``: every call of the
    reference gave the bits that it had given alone; prompts that were not timed are not among them.
    """

    made: Generated
    timing: Timing
    repeatable: bool
    reference_repeatable: bool


def latency_pass(
    cell: Calls,
    reference: Calls,
    expected: Generated,
    workload: Workload,
    options: Options,
    resolve: tuple[float, ...],
    on_pair: Callable[[int, int], None],
    spent: Spent,
) -> Passed:
    """Time pairs of full batches, compare their images between pairs, then run what is left over of the prompts.

    The reference's images are known: it runs again for its time alone, so not once for each prompt. On CUDA further
    calls are profiled, which would be no fair samples of wall time.
    """
    seen: dict[int, Generated] = {}
    fresh: list[tuple[bool, range, Generated]] = []
    same = {True: True, False: True}

    def compare(done: int, total: int) -> None:
        for is_cell, batch, made in fresh:
            known = seen.setdefault(batch.start, made) if is_cell else expected.rows(batch)
            same[is_cell] = same[is_cell] and known.equals(made)
        fresh.clear()
        on_pair(done, total)

    with disturbances(options.device) as disturbed:
        timing = interleave(
            lambda batch: fresh.append((True, batch, cell(batch))),
            lambda batch: fresh.append((False, batch, reference(batch))),
            workload.timed_batches(),
            device=options.device,
            pairs=options.pairs,
            time_s=options.time_s,
            resolve=resolve,
            on_pair=compare,
        )
        first = workload.batches()[0]
        busy = busy_pairs(cell.beginning(first), reference.beginning(first), options.device, spent)
    timing = msgspec.structs.replace(
        timing,
        busy_s=busy.cell or UNSET,
        reference_busy_s=busy.reference or UNSET,
        busy_steps=busy.steps,
        stages=cell.stages,
        reference_stages=reference.stages,
        disturbed=disturbed.told() or UNSET,
        unwatched=disturbed.unwatched() or UNSET,
    )
    for batch in workload.batches():
        if batch.start not in seen:
            seen[batch.start] = cell(batch)
    made = join([seen[batch.start] for batch in workload.batches()])
    return Passed(made=made, timing=timing, repeatable=same[True], reference_repeatable=same[False])

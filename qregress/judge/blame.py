"""Whether a part of a cell is to be blamed for its loss, for which prompts, and what was found, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qregress.frames import worst_of_prompts
from qregress.record import Blame, CellResult, Record, Restored, Scores

#: So many prompts are run again for each part: the worst of all, and one that says whether it is alone in that.
PROMPTS = 2

#: A block that carries so much of what its component carries is named; one below that is one of several.
_MOST = 0.5
#: Components and blocks beside the first are told with no less than that.
_TOLD = 0.1
_SHOWN = 3
_UNITS = {"lpips": "LPIPS", "latents": "the latents' relative L2"}


def suspects(record: Record, reference: Record | None, result: CellResult) -> tuple[int, ...]:
    """Places of the prompts for which a part of the cell is to be blamed, the worst first; empty: there is no loss.

    There is one where a check of the quality failed that nothing waives. By that check's score the prompts are ranked.
    What is compared with a reference that is no image has no distance to it.
    """
    scores, other = record.scores, reference.scores if reference is not None else None
    if scores is None or other is None or other.problems:
        return ()
    failed = {check.name.partition(".")[2] for check in result.checks if check.verdict == "fail"}
    ranks = {name: values for name, values in _scores(scores, len(record.prompts)).items() if name in failed}
    if not ranks:
        return ()
    worst = worst_of_prompts(record, next(iter(ranks.values())))
    return tuple(sorted(range(len(worst)), key=lambda prompt: -worst[prompt])[:PROMPTS])


def _scores(scores: Scores, prompts: int) -> dict[str, Sequence[float]]:
    """What a check of each name looks at, the higher the worse: of budgets and of regressions the same."""
    drops = [was - now for now, was in zip(scores.clip, scores.clip_reference, strict=False)]
    broken = {problem.prompt for problem in scores.problems}
    return {
        "lpips": scores.lpips,
        "motion": scores.motion or (),
        "clip_drop": drops,
        "clip": drops,
        "latents": [math.inf if value is None else value for value in scores.latents],
        "sanity": [float(prompt in broken) for prompt in range(prompts)],
    }


def told(blame: Blame) -> str:
    """What was found, as a note on the cell."""
    unit = _UNITS[blame.score]
    whole = f"{unit} {blame.distance:.3g}" if blame.distance is not None else f"{unit}, which is not finite"
    parts = blame.components
    if blame.component is None:
        left = f": with {parts[0].name} unquantized it is {_left(parts[0])}" if parts else ""
        return f"blame: no quantized component carries {whole}{left}"
    first, *others = (f"{part.name} carries {blame.share(part):.0%}" for part in _large(blame, parts))
    beside = "".join(f", {other}" for other in others)
    return f"blame: {first} of {whole} ({_left(parts[0])} with it unquantized){beside}{_blocks(blame)}"


def _blocks(blame: Blame) -> str:
    if not blame.blocks:
        return ""
    carried = blame.share(blame.components[0])
    tried = [*blame.blocks, *blame.runs[1:]]  # of the first run the blocks are told
    alone = [part for part in tried if blame.share(part) >= _MOST * carried]
    if alone:
        return f"; of {blame.component}, {_list(blame, alone)}"
    if blame.share(blame.blocks[0]) <= 0:
        return f"; no single block of {blame.component} does: none unquantized alone makes it less"
    largest = _list(blame, _large(blame, blame.blocks))
    runs = f"of runs of blocks {_list(blame, _large(blame, blame.runs))}; of the first, " if blame.runs else ""
    return f"; no single block of {blame.component} does: {runs}the largest are {largest}"


def _list(blame: Blame, parts: Sequence[Restored]) -> str:
    return ", ".join(f"{part.name} with {blame.share(part):.0%}" for part in parts[:_SHOWN])


def _large(blame: Blame, parts: Sequence[Restored]) -> list[Restored]:
    """The first, and those beside it that carry a part worth telling."""
    return [part for place, part in enumerate(parts) if place == 0 or blame.share(part) >= _TOLD]


def _left(part: Restored) -> str:
    return "not finite" if part.distance is None else f"{part.distance:.3g}"

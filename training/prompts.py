"""Choose the zoo's builtin prompts: held-out captions that together show every word of the grammar.

`python -m training.prompts` writes `qregress/zoo/prompts.txt`, one caption a line. The first eight are the prompts of
every builtin workload, so the choice is greedy: each caption is the one whose words were used least so far.
"""

from __future__ import annotations

from collections import Counter

import torch

from training import runtime, scenes

COUNT = 32
CANDIDATES = 2000
SEED = 32


def choose(count: int = COUNT) -> list[str]:
    """Held-out captions, one and two shapes in turn."""
    generator = torch.Generator().manual_seed(SEED)
    single = [scenes.scene(row) for row in scenes.sample(CANDIDATES, generator, held=True, pairs=0.0)]
    pair = [scenes.scene(row) for row in scenes.sample(CANDIDATES, generator, held=True, pairs=1.0)]
    used: Counter[str] = Counter()
    chosen: list[str] = []
    for turn in range(count):
        candidates = pair if turn % 2 == 0 else single
        best = min(candidates, key=lambda one: _cost(one, used))
        candidates.remove(best)
        used.update(_words(best))
        chosen.append(best.caption())
    return chosen


def _words(one: scenes.Scene) -> list[str]:
    words = [one.background, one.pattern]
    for shape in one.shapes:
        words += [shape.kind, shape.colour, shape.size, scenes.CELLS[shape.cell]]
    return words


def _cost(one: scenes.Scene, used: Counter[str]) -> int:
    """Squared, so that one worn word weighs more than several used once; a word twice in a caption counts twice."""
    words = Counter(_words(one))
    return sum((used[word] + times) ** 2 - used[word] ** 2 for word, times in words.items())


def main() -> None:
    """Write the file."""
    (runtime.ZOO / "prompts.txt").write_text("\n".join(choose()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

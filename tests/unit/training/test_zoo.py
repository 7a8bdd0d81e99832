"""What lies in the zoo: sizes, prompts, cards and scores."""

import json
from pathlib import Path

import pytest

from training import card, denoise, prompts, runtime, scenes

# The zoo of all families is to stay under 48 MB, so each has its share.
LIMITS = {
    "shared/vae-4": 5_000_000,
    "shared/vae-16": 2_700_000,
    "clip": 4_000_000,
    "pixart-sigma": 5_800_000,
    "sd3": 7_600_000,
    "aura-flow": 5_500_000,
    "hunyuan-dit": 6_000_000,
    "lumina": 5_400_000,
    "pixart-alpha": 3_700_000,
    "latte": 3_300_000,
}
WHOLE, FILE = 48_000_000, 12_000_000
PIPELINES = sorted(path.parent.name for path in runtime.ZOO.glob("*/pocket.json"))
TRAINED = sorted(path.parent.relative_to(runtime.ZOO).as_posix() for path in runtime.ZOO.rglob("training.json"))


def size(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_there_is_known() -> None:
    """Every folder with weights has a limit and a card, and every family that has a recipe is in the package."""
    weights = {path.relative_to(runtime.ZOO).as_posix() for path in runtime.ZOO.rglob("*.safetensors")}
    assert all(any(file.startswith(f"{name}/") for name in TRAINED) for file in weights)
    assert set(TRAINED) == LIMITS.keys()
    assert {denoise.read_recipe(path.stem)["family"] for path in denoise.RECIPES.glob("*.toml")} == set(PIPELINES)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_sizes(name: str) -> None:
    """Each folder stays within its bytes."""
    assert size(runtime.ZOO / name) <= LIMITS[name]


def test_the_whole_zoo_stays_small() -> None:
    """All of it, and every file: it is downloaded with the package."""
    assert size(runtime.ZOO) <= WHOLE
    assert max(path.stat().st_size for path in runtime.ZOO.rglob("*") if path.is_file()) <= FILE


def test_prompts_are_held_out_and_varied() -> None:
    """No builtin prompt was trained on, and the first eight show every colour and every kind but at most one."""
    lines = (runtime.ZOO / "prompts.txt").read_text(encoding="utf-8").splitlines()
    assert prompts.choose() == lines
    assert len(lines) == len(set(lines))
    parsed = [scenes.parse(line) for line in lines]
    assert all(one.held_out() for one in parsed)
    shapes = [shape for one in parsed[:8] for shape in one.shapes]
    assert len(scenes.COLOURS) - 1 <= len({shape.colour for shape in shapes})
    assert len(scenes.KINDS) - 1 <= len({shape.kind for shape in shapes})
    assert set(scenes.PATTERNS) == {one.pattern for one in parsed[:8]}


@pytest.mark.parametrize("name", TRAINED)
def test_cards_say_what_was_measured(name: str) -> None:
    """A card is what its JSON files and weights give: no figure on it is typed by hand."""
    folder = runtime.ZOO / name
    assert (folder / "card.md").read_text(encoding="utf-8") == card.render(folder, name)


@pytest.mark.parametrize("name", PIPELINES)
def test_scores_meet_the_bars(name: str) -> None:
    """The bars of the pocket pipelines on the scores beside the weights."""
    measured = json.loads((runtime.ZOO / name / "scores.json").read_text(encoding="utf-8"))
    assert measured.keys() == {"cpu", "cuda"}
    for scores in measured.values():
        assert scores["generated"]["clip_accuracy"] >= 0.90
        assert scores["rendered"]["clip_accuracy"] >= 0.97
        assert scores["generated"]["reader_colour"] >= 0.97
        assert scores["generated"]["reader_shape"] >= 0.90

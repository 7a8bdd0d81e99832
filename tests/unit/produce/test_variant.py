"""A setting applied to a loaded pipeline."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from torch import nn

from qregress import pipelines
from qregress.config.settings import read_setting
from qregress.config.tables import SettingTable
from qregress.errors import ProduceError
from qregress.matrix import Setting, Training
from qregress.pipelines.assemble import family_of
from qregress.produce.variant import assemble, plans, specs

_TRAINING = {"qat": Training()}


@pytest.fixture(scope="module")
def pocket() -> Any:
    """The pocket pipeline."""
    return pipelines.load("pocket:pixart-sigma", "float16", "cpu")


def test_a_setting_of_a_component_that_it_turns_out_not_to_have(pocket: Any) -> None:
    """Given a factory that does not say its components, then the cell that quantizes another says so."""
    setting = Setting(name="int8", weights={"unet": "int8"})
    with pytest.raises(ProduceError, match="setting 'int8' quantizes 'unet', which the pipeline does not have; allow"):
        plans(pocket, setting)


@pytest.mark.parametrize("key", ["fuse_qkv", "qat"])
def test_what_concerns_the_denoiser_alone(key: str, pocket: Any) -> None:
    """Given a factory whose denoiser is known now, when the setting leaves that, then joining or training it is told.

    Of a text encoder's projections nothing is joined, and it is not trained: both did nothing without a word.
    """
    asked = Setting(name="te", weights={"text_encoder": "int8"}, fuse_qkv=key == "fuse_qkv", qat=_TRAINING.get(key))
    with pytest.raises(ProduceError, match=f"setting 'te' has {key}, and its weights leave transformer as it is; name"):
        specs(pocket, asked)
    both = msgspec.structs.replace(asked, weights={"text_encoder": "int8", "transformer": "int8"})
    assert specs(pocket, both).keys() == both.weights.keys()


def test_the_setting_in_the_readme(pocket: Any) -> None:
    """Given the README's setting with all keys, then each of its patterns and components means something."""
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(\[settings\.everything\]\n.*?)```", readme, re.DOTALL)
    (table,) = tomllib.loads(text)["settings"].values()
    assert table.keys() == {field.name for field in msgspec.structs.fields(SettingTable)} - {"pipelines"}

    def fail(key: str, wrong: str) -> NoReturn:
        pytest.fail(f"{key}: {wrong}")

    setting = read_setting("everything", msgspec.convert(table, SettingTable), fail).of(family_of(pocket))
    planned = plans(pocket, setting)
    for name, weights in setting.weights.items():
        assert planned[name].unmatched == ()
        assert set(planned[name].expected.values()) == {weights, None}


def test_a_copy_keeps_what_was_set_on_a_pipeline(pocket: Any) -> None:
    """Given an object of the pipeline's own that holds a component, then in a quantized copy it holds the copy's."""

    class Wrapper:
        def __init__(self, part: nn.Module) -> None:
            self.part = part

    class Own(type(pocket)):  # type: ignore[misc]
        def __init__(self, tokenizer: Any, text_encoder: Any, vae: Any, transformer: Any, scheduler: Any) -> None:
            super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
            self.strength = 1

    own = Own(**pocket.components)
    own.strength, own.wrapper = 2, Wrapper(own.transformer)
    new = nn.Linear(1, 1)
    copied = assemble(own, {"transformer": new})
    assert copied.strength == 2
    assert (copied.transformer, copied.wrapper.part) == (new, new)
    assert (own.transformer, own.wrapper.part) == (pocket.transformer, pocket.transformer)
    assert copied.vae is own.vae
    assert copied.scheduler is not own.scheduler

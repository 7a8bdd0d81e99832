"""What is left of a loss with one part at a time unquantized."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress import pipelines
from qregress.pipelines import pocket
from qregress.pipelines.assemble import family_of
from qregress.produce.blame import blame, blocks_of, changed_blocks, restored
from qregress.produce.variant import assemble
from qregress.quantize import load_backend
from qregress.record import Blame


class _Component(nn.Module):
    """Blocks of linear layers beside two parts that are in no list."""

    inner: Any

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(1, 1, bias=False)
        self.inner = nn.Module()
        self.inner.layers = nn.ModuleList(nn.Sequential(nn.Linear(1, 1, bias=False)) for _ in range(blocks))
        self.proj_out = nn.Linear(1, 1, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class _Pipeline(DiffusionPipeline):
    """Two components with weights."""

    def __init__(self, transformer: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, text_encoder=text_encoder)


def damaged(pristine: Any, **errors: dict[str, float]) -> Any:
    """A copy in which weights of some components are off."""
    parts = {name: copy.deepcopy(pristine.components[name]) for name in errors}
    for component, wrong in errors.items():
        for name, error in wrong.items():
            nn.init.constant_(parts[component].get_parameter(f"{name}.weight"), error)
    return assemble(pristine, parts)


def distance(pipeline: Any) -> float:
    """The sum of all errors."""
    parts = (pipeline.transformer, pipeline.text_encoder)
    return sum(float(weight.detach().abs().sum()) for part in parts for weight in part.parameters())


def found(pipeline: Any, pristine: Any, measure: Callable[[Any], float] = distance, **options: Any) -> Blame:
    """Blame of what is off by the sum of errors."""
    parts = {name: part for name, part in pipeline.components.items() if part is not pristine.components[name]}
    given: dict[str, Any] = {
        "components": tuple(parts),
        "whole": measure(pipeline),
        "score": "lpips",
        "prompts": (1, 0),
    } | options
    return blame(pipeline, pristine, measure, **given)


def shares(blamed: Blame) -> dict[str, Any]:
    """By part, components and blocks, in the order in which they are told."""
    parts = (*blamed.components, *blamed.runs, *blamed.blocks)
    return {part.name: pytest.approx(blamed.share(part)) for part in parts}


@pytest.fixture
def pristine() -> Any:
    """Three blocks in each component, none of which is off."""
    return _Pipeline(_Component(3), _Component(3))


def test_component_and_block_with_known_shares(pristine: Any) -> None:
    """Given errors of known size, then each part's share is its own, the largest first."""
    errors = {"proj_in": 0.5, "inner.layers.1": 6.0, "proj_out": 1.5}
    pipeline = damaged(pristine, transformer=_weights(errors), text_encoder=_weights({"inner.layers.0": 2.0}))
    blamed = found(pipeline, pristine)
    assert blamed.component == "transformer"
    assert shares(blamed) == {
        "transformer": 0.8,
        "text_encoder": 0.2,
        "inner.layers.1": 0.6,
        "proj_out": 0.15,
        "proj_in": 0.05,
    }
    assert (blamed.distance, blamed.prompts) == (10.0, (1, 0))


def _weights(errors: dict[str, float]) -> dict[str, float]:
    return {f"{name}.0" if "layers" in name else name: error for name, error in errors.items()}


def test_what_is_not_quantized_is_not_tried(pristine: Any) -> None:
    """Given one component and one block of it that are off, then each is one call, and progress says so."""
    steps: list[tuple[int, int]] = []
    pipeline = damaged(pristine, transformer=_weights({"inner.layers.2": 1.0}))
    blamed = found(pipeline, pristine, on_step=lambda done, total: steps.append((done, total)))
    assert shares(blamed) == {"transformer": 1.0, "inner.layers.2": 1.0}
    assert steps == [(1, 1), (2, 2)]


def test_copies_that_are_not_quantized_are_not_tried(pristine: Any) -> None:
    """Given another component that is a copy as well, as what is compiled is, then no call is spent on it."""
    pipeline = damaged(pristine, transformer=_weights({"inner.layers.2": 1.0}), text_encoder={})
    assert pipeline.text_encoder is not pristine.text_encoder
    assert shares(found(pipeline, pristine, components=("transformer",))) == {"transformer": 1.0, "inner.layers.2": 1.0}


def test_where_no_component_helps_no_block_is_tried(pristine: Any) -> None:
    """Given a component whose restoring makes it worse, then its share is negative and that is all."""
    pipeline = damaged(pristine, transformer=_weights({"proj_in": 1.0}))
    blamed = found(pipeline, pristine, lambda tried: 3.0 - distance(tried))
    assert shares(blamed) == {"transformer": -0.5}
    assert (blamed.component, blamed.blocks) == (None, ())


def test_what_becomes_finite_again(pristine: Any) -> None:
    """Given a loss that is not finite, then the part whose restoring makes it finite carries all of it."""
    errors = _weights({"inner.layers.0": float("inf"), "proj_out": 1.0})
    blamed = found(damaged(pristine, transformer=errors), pristine)
    assert blamed.distance is None
    assert shares(blamed) == {"transformer": 1.0, "inner.layers.0": 1.0, "proj_out": 0.0}


def test_many_blocks_are_tried_in_runs_first() -> None:
    """Given 36 blocks and parts, then runs of six are tried and the six of one run, and the block is found."""
    pristine = _Pipeline(_Component(34), _Component(1))
    every = {f"inner.layers.{index}": 0.1 for index in range(34)} | {"proj_in": 0.1, "proj_out": 0.1}
    steps: list[int] = []
    pipeline = damaged(pristine, transformer=_weights(every | {"inner.layers.20": 6.5}))
    blamed = found(pipeline, pristine, on_step=lambda done, _total: steps.append(done))
    assert len(steps) == 1 + 6 + 6
    assert blamed.runs[0].name == "inner.layers.17 to inner.layers.22"
    assert blamed.blocks[0].name == "inner.layers.20"
    assert blamed.share(blamed.blocks[0]) == pytest.approx(0.65)


def test_modules_are_as_before_on_errors_too(pristine: Any) -> None:
    """Given a call that raises while a block is restored, then the pipeline has the modules that it had."""
    pipeline = damaged(pristine, transformer=_weights({"inner.layers.0": 1.0, "inner.layers.1": 2.0}))
    before = dict(pipeline.transformer.named_modules())
    calls: list[float] = []

    def failing(tried: Any) -> float:
        calls.append(distance(tried))
        if len(calls) == 4:
            raise ZeroDivisionError
        return calls[-1]

    with pytest.raises(ZeroDivisionError):
        found(pipeline, pristine, failing)
    assert calls == [3.0, 0.0, 2.0, 1.0]
    assert dict(pipeline.transformer.named_modules()) == before
    assert pipeline.transformer is not pristine.transformer


def test_a_part_with_two_names_is_one_block_and_restored_at_both() -> None:
    """Given a module that is registered twice, then it is tried once, in both places, and put back in both."""
    pristine: Any = _Component(1)
    pristine.inner.tied = pristine.proj_in
    component = copy.deepcopy(pristine)
    nn.init.ones_(component.proj_in.weight)
    shared = component.proj_in
    places = changed_blocks(component, pristine)
    assert places == {"proj_in": ("proj_in", "inner.tied")}
    with restored(component, pristine, places["proj_in"]):
        assert component.proj_in is pristine.proj_in
        assert component.inner.tied is pristine.proj_in
    assert component.proj_in is shared
    assert component.inner.tied is shared


def test_a_layer_that_blocks_share_is_restored_in_all_of_them() -> None:
    """Given a layer inside two blocks, then with one block restored the other has no quantized layer left."""
    pristine: Any = _Component(2)
    pristine.inner.layers[1] = nn.Sequential(pristine.inner.layers[0][0], nn.Linear(1, 1))
    component = copy.deepcopy(pristine)
    nn.init.ones_(component.inner.layers[0][0].weight)
    places = changed_blocks(component, pristine)
    assert places["inner.layers.0"] == ("inner.layers.0", "inner.layers.1.0")
    with restored(component, pristine, places["inner.layers.0"]):
        assert float(component.inner.layers[1][0].weight.detach()) == 0
    assert float(component.inner.layers[1][0].weight.detach()) == 1


def test_what_has_no_counterpart_cannot_be_restored() -> None:
    """Given a layer that the quantized component has alone, then its block is restored whole, and it is no block."""
    pristine: Any = _Component(2)
    component = copy.deepcopy(pristine)
    component.inner.layers[1].append(nn.Linear(1, 1))
    component.merged = nn.Linear(1, 1)
    assert changed_blocks(component, pristine) == {"inner.layers.1": ("inner.layers.1",)}


def test_lists_within_blocks_are_parts_of_them() -> None:
    """Given lists inside of a list's entries, then the outermost entries are the blocks; a list alone in a part too."""
    component: Any = nn.Module()
    block: Any = nn.Module()
    block.layer = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    component.encoder = nn.Module()
    component.encoder.block = nn.ModuleList([block, copy.deepcopy(block)])
    component.head = nn.Module()
    component.head.net = nn.ModuleList([nn.Linear(1, 1)])
    component.norm = nn.LayerNorm(1)
    assert list(blocks_of(component)) == ["encoder.block.0", "encoder.block.1", "head.net.0", "norm"]


def components() -> Iterator[tuple[str, str, nn.Module]]:
    """Denoisers and text encoders of all pocket pipelines."""
    for name in pocket.names():
        pipeline = pipelines.load(f"pocket:{name}", "float16", "cpu")
        roles = family_of(pipeline)
        for part in (roles.denoiser, *roles.text_encoders):
            yield name, part, pipeline.components[part]


#: What the blocks of pocket pipelines are called, the last of each list.
BLOCKS = {
    ("aura-flow", "transformer"): ("joint_transformer_blocks.0", "single_transformer_blocks.3", "proj_out"),
    ("hunyuan-dit", "text_encoder"): ("encoder.layer.1", "pooler"),
    ("latte", "transformer"): ("transformer_blocks.2", "temporal_transformer_blocks.2", "adaln_single"),
    ("lumina", "text_encoder"): ("layers.2",),
    ("pixart-sigma", "transformer"): ("transformer_blocks.7", "caption_projection", "pos_embed", "proj_out"),
    ("pixart-sigma", "text_encoder"): ("encoder.block.2",),
    ("sd3", "text_encoder"): ("text_model.encoder.layers.1", "text_projection"),
}


def test_every_layer_of_the_zoo_belongs_to_one_block() -> None:
    """Given all denoisers and text encoders, then each module that can be quantized is in exactly one block."""
    backend = load_backend("quanto")
    seen = set()
    for pipeline, part, component in components():
        blocks = blocks_of(component)
        modules = dict(component.named_modules())
        layers = [id(modules[name]) for name in backend.eligible(component)]
        owners = [id(module) for block in blocks.values() for module in block.modules() if id(module) in {*layers}]
        assert layers
        assert sorted(owners) == sorted(layers), (pipeline, part)
        assert set(BLOCKS.get((pipeline, part), ())) <= blocks.keys(), (pipeline, part)
        seen.add((pipeline, part))
    assert BLOCKS.keys() <= seen


def test_quantized_blocks_of_a_pocket_pipeline() -> None:
    """Given a denoiser in 8 bits without its last layer, then all blocks with layers are changed but that one."""
    pristine = pipelines.load("pocket:sd3", "float16", "cpu").transformer
    component = cast("nn.Module", copy.deepcopy(pristine))
    quantize(component, exclude="proj_out")
    blocks = [f"transformer_blocks.{index}" for index in range(4)]
    expected = {"pos_embed", "time_text_embed", "context_embedder", "norm_out", *blocks}
    assert changed_blocks(component, pristine).keys() == expected
    with restored(component, pristine, ("transformer_blocks.1",)):
        assert changed_blocks(component, pristine).keys() == expected - {"transformer_blocks.1"}
    assert changed_blocks(component, pristine).keys() == expected
    assert not changed_blocks(pristine, pristine)


def quantize(component: nn.Module, exclude: str) -> None:
    """To 8 bits, by the library itself."""
    from optimum.quanto import freeze, qint8
    from optimum.quanto import quantize as apply

    with torch.no_grad():
        apply(component, weights=qint8, exclude=[exclude])
        freeze(component)

"""Cells, their ids and their order."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from qregress.matrix import Cell, Pipeline, Roles, Setting, Workload, canonical, product

NAMES = st.lists(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,6}", fullmatch=True).filter(lambda name: name != "reference"),
    min_size=1,
    max_size=4,
    unique=True,
)


def matrix(pipelines: list[str], settings: list[str], workloads: list[str]) -> list[Cell]:
    """The cells of a matrix of names."""
    return product(
        [Pipeline(name=name, source="path:x", devices=("cpu",)) for name in pipelines],
        [Setting(name=name, weights={"transformer": "int8"}) for name in settings],
        [Workload(name=name, prompts=("a",)) for name in workloads],
    )


def test_ids_are_readable() -> None:
    """Given names, then an id is those names, and the reference comes before what is compared with it."""
    cells = matrix(["sd3", "pixart"], ["int8+te", "fp8"], ["bs4", "bs1"])
    assert [cell.id for cell in cells][:4] == [
        "pixart/reference/bs1",
        "pixart/int8+te/bs1",
        "pixart/fp8/bs1",
        "pixart/reference/bs4",
    ]
    assert cells[1].reference_id == "pixart/reference/bs1"
    assert [cell.setting.is_reference for cell in cells[:3]] == [True, False, False]


@given(NAMES, NAMES, NAMES)
def test_ids_are_unique(pipelines: list[str], settings: list[str], workloads: list[str]) -> None:
    """Given any matrix, then it has one cell per combination and no two share an id."""
    ids = [cell.id for cell in matrix(pipelines, settings, workloads)]
    assert len(set(ids)) == len(ids) == len(pipelines) * (len(settings) + 1) * len(workloads)


@given(NAMES, NAMES, NAMES, st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_the_order_of_tables(
    pipelines: list[str], settings: list[str], workloads: list[str], generator: random.Random
) -> None:
    """Given the same tables in another order, then the ids are the same, and so is the order of pipelines."""
    before = matrix(pipelines, settings, workloads)
    shuffled = [generator.sample(names, len(names)) for names in (pipelines, settings, workloads)]
    after = matrix(*shuffled)
    assert {cell.id for cell in before} == {cell.id for cell in after}
    assert [cell.pipeline.name for cell in before] == [cell.pipeline.name for cell in after]


@given(NAMES, NAMES, NAMES)
def test_a_pipeline_stays_together(pipelines: list[str], settings: list[str], workloads: list[str]) -> None:
    """Given any matrix, then the cells of a pipeline follow each other: it is loaded once."""
    names = [cell.pipeline.name for cell in matrix(pipelines, settings, workloads)]
    changes = sum(before != after for before, after in itertools.pairwise(names))
    assert changes == len(pipelines) - 1


@given(st.integers(min_value=1, max_value=20), st.integers(min_value=1, max_value=20))
def test_batches_hold_each_prompt_once(count: int, batch_size: int) -> None:
    """Given prompts and a batch size, then every prompt is in one batch and only the last is shorter."""
    batches = Workload(name="w", prompts=("a",) * count, batch_size=batch_size).batches()
    assert [index for batch in batches for index in batch] == list(range(count))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert 1 <= len(batches[-1]) <= batch_size


def test_only_full_batches_are_timed() -> None:
    """Given nine prompts in batches of four, then the ninth is generated, but its call is compared with no other."""
    workload = Workload(name="w", prompts=tuple("abcdefghi"), batch_size=4)
    assert workload.batches() == [range(4), range(4, 8), range(8, 9)]
    assert workload.timed_batches() == [range(4), range(4, 8)]
    assert Workload(name="w", prompts=("a",), batch_size=4).timed_batches() == [range(1)]


SD3 = Roles(denoiser="transformer", text_encoders=("text_encoder", "text_encoder_2"), final="proj_out")


def test_roles_stand_for_components() -> None:
    """Given roles, then a setting names the pipeline's own components, and asks for what it would by naming them."""
    asked = Setting(
        name="a", weights={"text_encoders": "float8", "denoiser": "int8"}, exclude=("x", "final_projection")
    )
    plain = Setting(
        name="b",
        weights={"transformer": "int8", "text_encoder": "float8", "text_encoder_2": "float8"},
        exclude=("x", "proj_out"),
    )
    assert asked.speaks_of_roles
    assert not asked.of(SD3).speaks_of_roles
    assert canonical(asked.of(SD3)) == canonical(plain)


def test_a_component_that_is_named_keeps_its_own_type() -> None:
    """Given a role and one of its components, in whichever order, then the component's own type holds."""
    both = {"text_encoder_2": "int8", "text_encoders": "float8"}
    for weights in (both, dict(reversed(both.items()))):
        assert SD3.weights(weights) == {"text_encoder": "float8", "text_encoder_2": "int8"}


def test_a_final_projection_that_is_not_known() -> None:
    """Given roles without one, then the word stays, for whoever has the loaded model."""
    assert Roles(denoiser="unet").patterns(("final_projection",)) == ("final_projection",)


def test_settings_for_some_pipelines() -> None:
    """Given a setting for some pipelines, then the others do not get it, and it asks for the same as one for all."""
    some = Setting(name="some", weights={"transformer": "int8"}, pipelines=("sd*",))
    cells = product(
        [Pipeline(name=name, source="path:x", devices=("cpu",)) for name in ("sd3", "pixart")],
        [some, Setting(name="all", weights={"transformer": "int8"})],
        [Workload(name="w", prompts=("a",))],
    )
    assert [cell.id for cell in cells if not cell.setting.is_reference] == ["pixart/all/w", "sd3/some/w", "sd3/all/w"]
    assert canonical(some) == {"weights": {"transformer": "int8"}}

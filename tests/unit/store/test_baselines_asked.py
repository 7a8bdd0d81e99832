"""What was asked for: when a baseline is comparable, and in which words it is not."""

from __future__ import annotations

import msgspec
import pytest

from qregress.store.baselines import Store, differences
from tests.store_making import CLASS, make_asked
from tests.unit.store.making import FIRST


def test_another_device_class(store: Store) -> None:
    """Given a baseline of another kind of device, then the sentence names both kinds."""
    assert store.explain("cuda-h100", FIRST, make_asked()) == f"accepted on {CLASS} only, and this is cuda-h100"
    assert store.explain(CLASS, "pixart/x/bs1", make_asked()) == f"no baseline of this cell was accepted on {CLASS}"


def test_a_changed_configuration(store: Store) -> None:
    """Given a cell of which something else is asked for, then the sentence names what, before and now."""
    asked = make_asked("s00", workload={"prompts": ["a red circle"], "steps": 8, "guidance": 2.5}, call={"clean": True})
    assert store.explain(CLASS, FIRST, asked) == (
        "what is asked for has changed since its baseline was accepted: call's clean was the default and is true; "
        "call's guidance_scale was the default and is 2.5; call's num_inference_steps was 4 and is 8"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source_sha256": "6" * 64}, "the pipeline's files are others"),
        ({"reference_dtype": "bfloat16"}, "the reference ran in float16 and runs in bfloat16"),
        ({"initial_sha256": "2" * 64}, "the initial noise is another, as after a change of torch's random stream"),
        ({"setting": {}}, "setting's exclude was [\"s00\"] and is the default; setting's weights was"),
        (
            {"workload": {"prompts": ["x" * 100], "steps": 4}},
            'workload\'s prompts was ["a red circle"] and is ["' + "x" * 55 + "...",
        ),
    ],
)
def test_differences(change: dict[str, object], says: str) -> None:
    """Given one thing that is asked for otherwise, then it is named, shortened where it is long."""
    before = make_asked("s00")
    assert differences(before, before) == []
    text = "; ".join(differences(before, msgspec.structs.replace(before, **change)))
    assert text.startswith(says)


def test_where_an_argument_is_said() -> None:
    """Given steps that the pipeline says and no more the workload, then the same is asked for."""
    before = make_asked("s00", workload={"prompts": ["a red circle"], "steps": 8}, call={"num_inference_steps": 4})
    moved = msgspec.structs.replace(before, workload={"prompts": ["a red circle"]}, call={"num_inference_steps": 8})
    assert before.key == moved.key
    assert differences(before, moved) == []
    assert differences(before, msgspec.structs.replace(moved, call={"num_inference_steps": 4})) == [
        "call's num_inference_steps was 8 and is 4"
    ]


def test_a_whole_number_is_one_number() -> None:
    """Given guidance 3 in a call and 3.0 in a workload, then the same is asked for."""
    said = make_asked("s00", workload={"prompts": ["a red circle"]}, call={"guidance_scale": 3})
    other = make_asked("s00", workload={"prompts": ["a red circle"], "guidance": 3.0}, call={})
    assert said.key == other.key
    assert said.key != msgspec.structs.replace(said, call={"guidance_scale": 3.5}).key

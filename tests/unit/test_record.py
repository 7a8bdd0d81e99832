"""Records to JSON and back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from qregress.metrics import WeightsId
from qregress.record import (
    Blame,
    CellResult,
    Check,
    Coverage,
    CoverageSummary,
    Data,
    Fingerprint,
    LatencySummary,
    Memory,
    ModuleCoverage,
    Noise,
    NoiseVariant,
    Problem,
    Record,
    Restored,
    Run,
    Scores,
    Stages,
    Timing,
    Trained,
    decode,
    encode,
    read,
)
from tests.making import INT8, make_record, make_scores

T = TypeVar("T", bound=Data)

TEXT = st.text(max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(min_value=0, max_value=2**53)
MAYBE = st.none() | NUMBER


def tuples(of: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    """Short tuples."""
    return st.lists(of, max_size=3).map(tuple)


def numbers(of: st.SearchStrategy[float] = NUMBER) -> st.SearchStrategy[tuple[float, ...]]:
    """Short tuples of numbers."""
    return st.lists(of, max_size=3).map(tuple)


MEMORY = st.builds(
    Memory,
    storage_bytes=COUNT,
    static_bytes=COUNT,
    peak_bytes=COUNT,
    reserved_bytes=st.none() | COUNT,
    load_peak_bytes=COUNT,
    components=st.dictionaries(TEXT, COUNT, max_size=2),
)
MODULE = st.builds(ModuleCoverage, name=TEXT, module=TEXT, expected=st.none() | TEXT, found=st.none() | TEXT,
                   tensor=TEXT, dtype=TEXT, bytes=COUNT)  # fmt: skip
SCORES = st.builds(
    Scores,
    lpips=numbers(),
    clip=numbers(),
    problems=tuples(st.builds(Problem, prompt=COUNT, kind=TEXT, detail=TEXT, frame=st.just(UNSET) | COUNT)),
    weights=st.lists(st.builds(WeightsId, name=TEXT, sha256=TEXT), max_size=2).map(tuple),
    note=st.none() | TEXT,
    motion=st.just(UNSET) | numbers(),
)
FINGERPRINT = st.builds(Fingerprint, python=TEXT, platform=TEXT, device=TEXT, device_name=TEXT, device_bytes=COUNT,
                        threads=COUNT, packages=st.dictionaries(TEXT, TEXT, max_size=2))  # fmt: skip
RESTORED = st.builds(Restored, name=TEXT, distance=MAYBE)
BLAME = st.builds(
    Blame,
    score=st.sampled_from(["lpips", "latents"]),
    prompts=st.lists(COUNT, max_size=2).map(tuple),
    distance=MAYBE,
    components=tuples(RESTORED),
    component=st.none() | TEXT,
    blocks=tuples(RESTORED),
)
RECORD = st.builds(
    Record,
    id=TEXT,
    pipeline=TEXT,
    setting=TEXT,
    workload=TEXT,
    status=st.sampled_from(["ran", "crashed", "not-run"]),
    prompts=st.lists(TEXT, max_size=2).map(tuple),
    memory=st.none() | MEMORY,
    timing=st.none() | st.builds(Timing, samples_s=numbers(), reference_s=numbers()),
    coverage=st.dictionaries(TEXT, st.builds(Coverage, modules=tuples(MODULE)), max_size=2),
    scores=st.none() | SCORES,
    fingerprint=st.none() | FINGERPRINT,
    seconds=NUMBER,
    frames=st.just(UNSET) | st.integers(min_value=1, max_value=2**53),
    blame=st.just(UNSET) | BLAME,
)
RESULT = st.builds(
    CellResult,
    id=TEXT,
    pipeline=TEXT,
    setting=TEXT,
    workload=TEXT,
    status=st.sampled_from(["ran", "crashed", "not-run"]),
    verdict=st.sampled_from(["pass", "fail", "crashed", "new", "void", "waived", "not-run"]),
    checks=tuples(st.builds(Check, name=TEXT, verdict=st.sampled_from(["pass", "fail"]), value=MAYBE, worst=MAYBE)),
    latency=st.none() | st.builds(LatencySummary, median_s=NUMBER, samples_s=numbers(), ratio=MAYBE),
    coverage=st.none()
    | st.builds(CoverageSummary, quantized=COUNT, eligible=COUNT, components=st.just({"transformer": {"modules": 2}})),
    scores=st.dictionaries(TEXT, MAYBE, max_size=2),
)


@given(RECORD)
def test_record_round_trip(record: Record) -> None:
    """Given any record, when it is encoded and decoded, then it is the same."""
    assert decode(encode(record), Record) == record


@given(st.builds(Run, started=TEXT, complete=st.booleans(), cells=tuples(RESULT)))
def test_run_round_trip(run: Run) -> None:
    """Given any judged run, when it is encoded and decoded, then it is the same."""
    assert decode(encode(run), Run) == run


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_has_no_number_for_is_null(value: float) -> None:
    """Given a number that is not finite, when it is encoded, then it is null, and reads back as not known."""
    record = make_record(scores=make_scores(latents=(0.5, value)))
    found = decode(encode(record), Record).scores
    assert found is not None
    assert found.latents == (0.5, None)


def test_a_training_that_diverged_can_be_read() -> None:
    """Given losses of NaN, then they are null in the file, and it reads back."""
    losses = {"first_loss": 0.5, "last_loss": float("nan")}
    trained = Trained(steps=2, prompts=1, seed=0, rate=1.0, seconds=1.0, **losses)
    found = decode(encode(make_record(trained={"transformer": trained})), Record).trained
    assert found is not UNSET
    assert (found["transformer"].first_loss, found["transformer"].last_loss) == (0.5, None)


def test_fields_are_named_in_errors(tmp_path: Path) -> None:
    """Given a record that was edited by hand, when it is read, then the error names the field."""
    path = tmp_path / "record.json"
    path.write_bytes(encode(make_record()).replace(b'"ran"', b'"run"'))
    with pytest.raises(msgspec.ValidationError, match="status"):
        read(path, Record)


def test_records_are_plain_json() -> None:
    """Given a record, when another program parses it, then it starts with the schema and the id."""
    raw = msgspec.json.decode(encode(make_record()))
    assert (raw["schema"], raw["id"]) == (2, INT8)


def test_what_only_videos_have_is_in_no_file_of_images() -> None:
    """Given a record of images, then its file has the fields that it had before there were videos, and no other."""
    problem = Problem(prompt=0, kind="black", detail="")
    noise = Noise(variants=(NoiseVariant(name="again"),))
    raw = msgspec.json.decode(encode(make_record(scores=make_scores(problems=(problem,)), noise=noise)))
    assert "frames" not in raw
    assert set(raw["scores"]) == {
        *("lpips", "clip", "clip_reference", "psnr_db", "ssim", "latents", "trajectory", "problems", "weights", "note")
    }
    assert set(raw["scores"]["problems"][0]) == {"prompt", "kind", "detail"}
    assert set(raw["noise"]["variants"][0]) == {"name", "lpips", "clip", "latents", "pixels", "unsound"}


def test_what_only_cells_have_that_were_blamed_is_in_no_other_file() -> None:
    """Given a record, then its file says what carries its loss only where that was asked; ``None`` is not finite."""
    assert "blame" not in msgspec.json.decode(encode(make_record()))
    found = Blame(score="latents", prompts=(1, 0), distance=None, components=(Restored(name="vae", distance=0.5),))
    assert decode(encode(make_record(blame=found)), Record).blame == found


@pytest.mark.parametrize("frames", ["0", "-1", "2.5"])
def test_a_video_has_frames(frames: str) -> None:
    """Given a record whose number of frames divides nothing, then it is refused when it is read."""
    data = encode(make_record(frames=3)).replace(b'"frames": 3', f'"frames": {frames}'.encode())
    with pytest.raises(msgspec.ValidationError, match="frames"):
        decode(data, Record)


def test_records_cannot_be_changed() -> None:
    """Given a record, when a field is set, then it refuses."""
    record = make_record()
    with pytest.raises(AttributeError):
        record.status = "crashed"  # type: ignore[misc]


def test_waiting_for_the_host() -> None:
    """Given calls of a second, busy for 0.8, then a fifth is the host's; of profiled steps, against their own time."""
    stages = Stages(encode_s=0.1, step_s=0.08, steps=10, decode_s=0.1)
    whole = Timing(samples_s=(1.0,), reference_s=(0.8,), busy_s=(0.8, 0.9), reference_busy_s=(0.8,))
    assert whole.host_bound == pytest.approx(0.2)
    assert whole.reference_host_bound == 0.0
    steps = msgspec.structs.replace(whole, busy_steps=5, busy_s=(0.4,), stages=stages)
    assert steps.host_bound == pytest.approx(0.2)
    assert steps.reference_host_bound is None  # without stages nobody knows how long five steps take

"""Records to JSON and back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qregress.metrics import WeightsId
from qregress.record import (
    CellResult,
    Check,
    Coverage,
    CoverageSummary,
    Data,
    Fingerprint,
    LatencySummary,
    Memory,
    ModuleCoverage,
    Problem,
    Record,
    Run,
    Scores,
    Timing,
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
    problems=tuples(st.builds(Problem, prompt=COUNT, kind=TEXT, detail=TEXT)),
    weights=st.lists(st.builds(WeightsId, name=TEXT, sha256=TEXT), max_size=2).map(tuple),
    note=st.none() | TEXT,
)
FINGERPRINT = st.builds(Fingerprint, python=TEXT, platform=TEXT, device=TEXT, device_name=TEXT, device_bytes=COUNT,
                        threads=COUNT, packages=st.dictionaries(TEXT, TEXT, max_size=2))  # fmt: skip
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


def test_records_cannot_be_changed() -> None:
    """Given a record, when a field is set, then it refuses."""
    record = make_record()
    with pytest.raises(AttributeError):
        record.status = "crashed"  # type: ignore[misc]

"""What a record is compared with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qregress.errors import StoreError
from qregress.judge.verdict import judge
from qregress.store.accept import accept
from qregress.store.baseline import BASELINE
from qregress.store.baselines import Store
from qregress.store.finished import FinishedRun
from qregress.store.history import accepted_latencies, distance, history
from tests.store_making import (
    CLASS,
    REASON,
    cells_of,
    finished_record,
    make_asked,
    make_fingerprint,
    matrix_ids,
    png,
    write_run,
)

REFERENCE, FIRST, _ = matrix_ids(2)


def gray(*levels: int, size: tuple[int, int] = (4, 4)) -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, levels).save(out, "PNG")
    return out.getvalue()


def test_the_accepted_record(store: Store) -> None:
    """Given a record that asks for what was accepted, then its baseline is found, and its checks pass."""
    record = finished_record(FIRST)
    past = history(store, record, lambda _: b"")
    assert past.entry == store.find(CLASS, FIRST)
    verdicts = {check.name: check.verdict for check in judge(record, None, {}, history=past).checks}
    assert {name: verdict for name, verdict in verdicts.items() if name.startswith("regression")} == {
        f"regression.{name}": "pass" for name in ("lpips", "clip", "latents", "memory", "latency", "coverage")
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"asked": None}, "its record does not say what was asked for: made by an older qregress; run it again"),
        ({"fingerprint": None}, "its record does not say what was asked for: made by an older qregress; run it again"),
        ({"asked": make_asked("s00", call={"clean": True})}, "what is asked for has changed since its baseline was "),
        ({"fingerprint": make_fingerprint(device_class="cuda-h100")}, f"accepted on {CLASS} only, and this is cuda-"),
    ],
)
def test_no_comparable_record(store: Store, fields: dict[str, Any], says: str) -> None:
    """Given a record that cannot be compared, then every regression check is new and says why."""
    past = history(store, finished_record(FIRST, **fields), lambda _: b"")
    assert past.entry is None
    assert past.missing.startswith(says)
    found = [c for c in judge(finished_record(FIRST), None, {}, history=past).checks if c.name.startswith("regression")]
    assert [(check.verdict, check.why) for check in found] == [("new", past.missing)] * 6


@pytest.mark.parametrize("name", ["../../x", "", "/etc", "a/b", "cpu\n", "."])
def test_a_device_class_that_is_no_name(store: Store, name: str) -> None:
    """Given a record, which may be a stranger's, whose device class is a path, then no file is looked for there."""
    record = finished_record(FIRST, fingerprint=make_fingerprint(device_class=name))
    with pytest.raises(StoreError, match="no place of a baseline") as caught:
        history(store, record, lambda _: b"")
    assert str(caught.value) == f"{name!r}, {FIRST!r}: no place of a baseline"
    with pytest.raises(StoreError, match="no place of a baseline"):
        store.find(CLASS, "../../x")


def test_a_damaged_baseline(store: Store) -> None:
    """Given an edited baseline, then it is no reason to say that there was none."""
    path = store.root / CLASS / FIRST / BASELINE
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match="edited or damaged"):
        history(store, finished_record(FIRST), lambda _: b"")


def test_drift(store: Store, run: Path) -> None:
    """Given a reference whose images are others, then it is told by how many levels they moved from those accepted."""
    with FinishedRun(run) as finished:
        same = history(store, finished_record(REFERENCE), lambda name: finished.image(REFERENCE, name))
        assert same.moved() == (0.0, 0.0)
    later = history(store, finished_record(REFERENCE, step=3), lambda _: png(99))
    moved = later.moved()
    assert moved is not None
    assert min(moved) > 10
    checks = judge(finished_record(REFERENCE, step=3), None, {}, history=later).checks
    assert [check.verdict for check in checks if check.name == "drift.reference"] == ["fail"]


def test_drift_of_videos(tmp_path: Path) -> None:
    """Given a reference's videos, then each frame is held against the accepted one at its place."""
    names = tuple(f"images/{index:02d}.png" for index in range(6))
    record = finished_record(REFERENCE, images=names, frames=3)
    store, run = Store(tmp_path / "baselines"), write_run(tmp_path / "videos", [record])
    with FinishedRun(run) as finished:
        accept(store, finished, [REFERENCE], REASON)
        entry = store.find(CLASS, REFERENCE)
        assert entry is not None
        assert entry.baseline.images == tuple(f"images/{index:02d}.webp" for index in range(6))

        def read(name: str) -> bytes:
            return png(99) if name == names[4] else finished.image(REFERENCE, name)

        moved = history(store, record, read).moved()
    assert moved is not None
    assert [value > 0 for value in moved] == [False] * 4 + [True, False]


def test_drift_without_images(tmp_path: Path, run: Path) -> None:
    """Given digests only, or another number of images, then how far a reference moved cannot be said."""
    store = Store(tmp_path / "baselines")
    with FinishedRun(run) as finished:
        accept(store, finished, cells_of(run), REASON, images=False)
    assert history(store, finished_record(REFERENCE, step=3), lambda _: b"").moved() is None
    with FinishedRun(run) as finished:
        accept(store, finished, cells_of(run), REASON)
    assert history(store, finished_record(REFERENCE, prompts=3), lambda _: b"").moved() is None


def test_distance() -> None:
    """Given two images, then their distance is the root mean square of levels; of other sizes, the largest there is."""
    assert distance(gray(1, 2, 3), gray(1, 2, 3)) == 0.0
    assert distance(gray(10, 10, 10), gray(13, 10, 10)) == pytest.approx(3 / 3**0.5)
    assert distance(gray(0, 0, 0), gray(255, 255, 255)) == 255.0
    assert distance(gray(0, 0, 0), gray(0, 0, 0, size=(4, 5))) == 255.0


def test_accepted_latencies(tmp_path: Path) -> None:
    """Given baselines on several devices, then the limits of one kind are what samples must decide between."""
    classes = ("cpu-a", "cpu-b", "cuda-h100")
    for name in classes:
        record = finished_record(FIRST, fingerprint=make_fingerprint(device_class=name))
        with FinishedRun(write_run(tmp_path / name, [record])) as finished:
            accept(Store(tmp_path / "baselines"), finished, [FIRST], REASON)
    store = Store(tmp_path / "baselines")
    assert len(accepted_latencies(store, FIRST, "cpu")) == 2
    (limit,) = accepted_latencies(store, FIRST, "cuda")
    assert 1.25 * 1.15 < limit < 1.25 * 1.3
    assert accepted_latencies(store, REFERENCE, "cpu") == accepted_latencies(store, FIRST, "cp") == ()

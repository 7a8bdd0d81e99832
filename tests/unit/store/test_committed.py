"""This repository's own baselines: what was accepted by an earlier version is read, written and compared as ever."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qregress.judge.history import History
from qregress.judge.verdict import judge
from qregress.record import Record, encode
from qregress.store.baseline import ACCEPTED, BASELINE, Entry, baseline_of, seal
from qregress.store.baselines import Key, Store

STORE = Store(Path(__file__).parents[3] / "baselines")
KEYS = STORE.places()


def entry_of(key: Key) -> Entry:
    """What was accepted there."""
    entry = STORE.find(key.device_class, key.cell)
    assert entry is not None
    return entry


def record_of(entry: Entry) -> Record:
    """The record that the same cell would leave if nothing has changed, without its manifest."""
    baseline = entry.baseline
    pipeline, setting, workload = baseline.id.split("/")
    return Record(
        id=baseline.id,
        pipeline=pipeline,
        setting=setting,
        workload=workload,
        status="ran",
        prompts=tuple(baseline.asked.workload["prompts"]),
        images=baseline.images,
        latents_sha256=baseline.latents_sha256,
        images_sha256=baseline.images_sha256,
        memory=baseline.memory,
        scores=baseline.scores,
        noise=baseline.noise,
        timing=entry.accepted.timing,
        fingerprint=entry.accepted.fingerprint,
        asked=baseline.asked,
    )


def test_there_are_some() -> None:
    """Given this repository, then the tests below have something to look at, and no file was edited."""
    assert len(KEYS) >= 7
    assert STORE.damage() == {}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.cell)
def test_written_again_it_is_the_same_to_the_byte(key: Key) -> None:
    """Given a baseline that is measured and accepted again with the same figures, then no byte of it changes."""
    entry = entry_of(key)
    folder = STORE.root / key.path
    assert encode(entry.baseline) == (folder / BASELINE).read_bytes()
    assert seal(entry.accepted) == (folder / ACCEPTED).read_bytes()
    again = baseline_of(record_of(entry), entry.baseline.coverage, entry.baseline.noise)
    kept = {"images": entry.baseline.images, "manifest": entry.baseline.manifest}  # made of what is not kept
    assert encode(msgspec.structs.replace(again, **kept)) == encode(entry.baseline)


def test_quantized_cells_have_manifests() -> None:
    """Given what was accepted on AVX2, then each quantized cell lists its modules, a line each, as a lock file does."""
    entries = [entry_of(key) for key in KEYS if key.device_class == "cpu-x86_64-avx2"]
    quantized = [entry.baseline for entry in entries if "/reference/" not in entry.baseline.id]
    assert len(quantized) == 15
    for baseline in quantized:
        assert baseline.manifest
        assert baseline.coverage is not None
        lines = [line for component in baseline.manifest.values() for line in component.values()]
        assert len(lines) >= baseline.coverage.quantized > 0


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.cell)
def test_the_same_figures_pass(key: Key) -> None:
    """Given the accepted figures, then every comparison is made and passes; given others, it fails."""
    entry = entry_of(key)
    record, past = record_of(entry), History(entry)
    assert record.scores is not None
    compared = {check.name: check for check in judge(record, None, {}, history=past).checks}
    verdicts = {name: check.verdict for name, check in compared.items() if name.startswith("regression")}
    for name in ("coverage", "latency"):  # the manifest itself is not kept; seconds need not decide
        verdicts.pop(f"regression.{name}", None)
    names = ["clip", "memory"] if record.setting == "reference" else ["lpips", "clip", "latents", "memory"]
    if record.scores.motion:  # of a video, and of no reference
        names.append("motion")
    assert verdicts == {f"regression.{name}": "pass" for name in names}
    fallen = msgspec.structs.replace(record.scores, clip=tuple(score - 10 for score in record.scores.clip))
    worse = judge(msgspec.structs.replace(record, scores=fallen), None, {}, history=past)
    assert "regression.clip" in {check.name for check in worse.checks if check.verdict == "fail"}

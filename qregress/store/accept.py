"""Finished cells made baselines: which may be, what changes, and the writing of it all as one."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec

from qregress.errors import StoreError
from qregress.judge.verdict import judge
from qregress.judge.waivers import Waiver
from qregress.matrix import reference_of
from qregress.record import CellResult, Record, encode
from qregress.store.baseline import ACCEPTED, BASELINE, Accepted, Entry, baseline_of, made_where, seal, with_images
from qregress.store.baselines import Key, Store, differences
from qregress.store.finished import FinishedRun
from qregress.store.history import history

Kind = Literal["new", "changed", "failing", "same"]
KINDS: tuple[Kind, ...] = ("new", "changed", "failing", "same")

#: Never accepted away: what these say is wrong whatever was accepted. Only a waiver lets them pass.
BINDING = ("quality.sanity", "coverage.manifest", "kernel.fidelity", "roundtrip.images", "roundtrip.disk")


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Who accepts, and why."""

    by: str
    why: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One cell's baseline before and after.

    ``kind``: ``new`` (there was none), ``changed`` (something else was asked for, or what was there is damaged),
    ``failing`` (its regression checks failed), ``same`` (within its limits). ``words``: what ``changed`` means.
    """

    id: str
    kind: Kind
    before: Entry | None
    after: Entry
    words: str = ""


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """What was accepted, and what was not and why, by cell."""

    changes: tuple[Change, ...]
    refused: dict[str, str]


def kind_of(result: CellResult, comparable: bool, known: bool) -> Kind:
    """Where a judged cell stands towards its baseline."""
    if not known:
        return "new"
    if not comparable:
        return "changed"
    failed = {check.name.partition(".")[0] for check in result.checks if check.verdict == "fail" and not check.stale}
    return "failing" if failed & {"regression", "drift"} else "same"


def refusal(record: Record, result: CellResult) -> str | None:
    """Why a cell may not become a baseline; ``None`` where it may."""
    if record.status != "ran":
        return f"it did not run to its end: {record.message or record.status}"
    broken = [check for check in result.checks if check.name in BINDING and check.verdict == "fail" and not check.stale]
    if broken:
        return "; ".join(f"{check.name} fails, which no baseline changes ({check.why})" for check in broken)
    if record.reference_repeatable is False:
        return "its reference did not repeat itself within the run"
    return None


def as_accepted(record: Record, result: CellResult) -> Entry:
    """A record as if it had been accepted, to compare another with. Raises ``ValueError`` for one that cannot be."""
    baseline = baseline_of(record, result.coverage, record.noise)
    accepted = Accepted(
        by="", at="", reason="", run="", commit=None, fingerprint=made_where(record), timing=record.timing, files={}
    )
    return Entry(baseline=baseline, accepted=accepted)


def accept(
    store: Store,
    run: FinishedRun,
    cells: Sequence[str],
    reason: Reason,
    *,
    kinds: Collection[Kind] = KINDS,
    waived: Sequence[Waiver] = (),
    images: bool = True,
    dry: bool = False,
) -> Acceptance:
    """Make cells of a run baselines, all of them or none.

    ``kinds``: only those, as they stand when the store is locked. ``images``: whether those of references are kept.
    ``dry``: only say what would change. Raises ``StoreError`` with one line where the store cannot be written, or
    ``ConfigError`` where the run cannot be read.
    """
    found = None
    while found is None:  # once more as often as somebody has changed meanwhile what the cells were judged against
        found = _accept(store, run, cells, reason, kinds=kinds, waived=waived, images=images, dry=dry)
    return found


class _Judged(msgspec.Struct, frozen=True):
    """``against``: the comparable entry; ``damage``: why it, or one of its images, could not be read."""

    record: Record
    result: CellResult
    against: Entry | None
    damage: str


class _ChangedError(Exception):
    """Another entry is there than the one that a cell was judged against."""


def _accept(
    store: Store,
    run: FinishedRun,
    cells: Sequence[str],
    reason: Reason,
    *,
    kinds: Collection[Kind],
    waived: Sequence[Waiver],
    images: bool,
    dry: bool,
) -> Acceptance | None:
    """``None``, and nothing is written, where the entries are others than those that were judged against."""
    found = {cell: _judged(store, run, cell, waived) for cell in cells}
    judged = {cell: one for cell, one in found.items() if isinstance(one, _Judged)}
    refused = {cell: why for cell, why in found.items() if isinstance(why, str)}
    refused |= {cell: why for cell, one in judged.items() if (why := refusal(one.record, one.result))}
    told: list[Change] = []

    def change(present: Mapping[Key, Entry | StoreError]) -> tuple[dict[Key, dict[str, bytes]], tuple[Key, ...]]:
        written = {}
        for cell, one in judged.items():
            if cell in refused:
                continue
            try:
                made, files = _entry(present, run, one, reason, images=images)
            except ValueError as error:
                refused[cell] = str(error)
                continue
            if made.kind in kinds:
                told.append(made)
                written[Key(made.after.baseline.device_class, cell)] = files
        return written, ()

    try:
        if dry:
            change(store.entries())
        else:
            store.write(change)
    except _ChangedError:
        return None
    return Acceptance(changes=tuple(told), refused={cell: refused[cell] for cell in cells if cell in refused})


def _judged(store: Store, run: FinishedRun, cell: str, waived: Sequence[Waiver]) -> _Judged | str:
    record = run.record(cell)
    if record is None:
        return "the run has no record of it"
    reference = run.record(reference_of(cell))
    against = None
    try:
        past = history(store, record, partial(run.image, cell))
        against = past.entry
        result = judge(record, reference, {}, history=past, waived=waived)
    except StoreError as error:
        # What is damaged there is about to be replaced.
        return _Judged(record, judge(record, reference, {}, waived=waived), against, str(error))
    return _Judged(record, result, against, "")


def _entry(
    present: Mapping[Key, Entry | StoreError],
    run: FinishedRun,
    judged: _Judged,
    reason: Reason,
    *,
    images: bool,
) -> tuple[Change, dict[str, bytes]]:
    """The new entry of a cell and its files. Raises ``ValueError`` for a record that cannot be one."""
    record, result = judged.record, judged.result
    baseline = baseline_of(record, result.coverage, record.noise)
    found = present.get(Key(baseline.device_class, record.id))
    before = found if isinstance(found, Entry) else None
    words = str(found) if isinstance(found, StoreError) else ""
    if before is not None:
        words = "; ".join(differences(before.baseline.asked, baseline.asked))
    comparable = before is not None and not words
    if _seal_of(before if comparable else None) != _seal_of(judged.against):
        raise _ChangedError
    noise_from = None
    if baseline.noise is None and before is not None and comparable and before.baseline.noise is not None:
        noise_from = before.accepted.noise_from or before.accepted.run
        baseline = msgspec.structs.replace(baseline, noise=before.baseline.noise)
    files: dict[str, bytes] = {}
    if images:
        baseline, files = with_images(baseline, record, partial(run.image, record.id))
    files[BASELINE] = encode(baseline)
    accepted = Accepted(
        by=reason.by,
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        reason=reason.why,
        run=run.run.started,
        commit=run.run.commit,
        fingerprint=made_where(record),
        timing=record.timing,
        files={name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        noise_from=noise_from,
    )
    files[ACCEPTED] = seal(accepted)
    change = Change(
        id=record.id,
        kind=kind_of(result, comparable=comparable and not judged.damage, known=found is not None),
        before=before,
        after=Entry(baseline=baseline, accepted=accepted),
        words=words or (judged.damage if found is not None else ""),
    )
    return change, files


def _seal_of(entry: Entry | None) -> str | None:
    return entry.accepted.sha256 if entry is not None else None

"""What a record is compared with, out of the store."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
from collections.abc import Callable

from qregress.errors import StoreError
from qregress.judge.history import History
from qregress.judge.noise import latency_margin
from qregress.record import Record
from qregress.stats import ratio
from qregress.store.baseline import Entry
from qregress.store.baselines import Store

ReadImage = Callable[[str], bytes]


def history(store: Store, record: Record, read: ReadImage) -> History:
    """The comparable baseline of a record, or why there is none.

    ``read`` takes names of the record's own images. Raises ``StoreError`` for a baseline that was edited or damaged.
    """
    if record.asked is None or record.fingerprint is None:
        return History(None, "its record does not say what was asked for: made by an older qregress; run it again")
    place = record.fingerprint.device_class, record.id
    entry = store.find(*place)
    if entry is None or entry.baseline.asked.key != record.asked.key:
        return History(None, store.explain(*place, record.asked))
    return History(entry, moved=lambda: moved(store, entry, record, read))


def accepted_latencies(store: Store, cell: str, kind: str) -> tuple[float, ...]:
    """The limits that accepted ratios of a cell set on any device of a kind: between these samples must decide.

    What is damaged sets none: whoever compares with it says so.
    """
    limits = []
    for key in store.places():
        if key.cell == cell and key.device_class.startswith(f"{kind}-"):
            entry = None
            with contextlib.suppress(StoreError):
                entry = store.find(key.device_class, cell)
            timing = entry.accepted.timing if entry is not None else None
            if timing is None or not timing.reference_s:
                continue
            was = ratio(timing.samples_s, timing.reference_s)
            if was is not None:
                limits.append(was.value + latency_margin(was, timing).value)
    return tuple(limits)


def moved(store: Store, entry: Entry, record: Record, read: ReadImage) -> tuple[float, ...] | None:
    """Levels of 8 bits, root mean square, between each accepted image and today's; ``None`` where none are kept."""
    names = entry.baseline.images
    if not names or len(names) != len(record.images):
        return None
    pairs = zip(names, record.images, strict=True)
    return tuple(distance(store.image(entry, name), read(mine)) for name, mine in pairs)


def distance(a: bytes, b: bytes) -> float:
    """Root mean square difference of two encoded images in levels of 8 bits; of other sizes, the largest there is."""
    from PIL import Image, ImageChops, ImageStat

    with Image.open(io.BytesIO(a)) as one, Image.open(io.BytesIO(b)) as two:
        if one.size != two.size:
            return 255.0
        difference = ImageChops.difference(one.convert("RGB"), two.convert("RGB"))
    return math.sqrt(statistics.fmean(value * value for value in ImageStat.Stat(difference).rms))

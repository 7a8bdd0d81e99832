"""One accepted record: what it said, and who accepted it, when, why and from which run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from qregress.frames import image_names
from qregress.judge.manifest import lines
from qregress.matrix import REFERENCE
from qregress.record import (
    SCHEMA,
    Asked,
    CoverageSummary,
    Data,
    Fingerprint,
    Memory,
    Noise,
    Record,
    Scores,
    Timing,
    encode,
)

BASELINE, ACCEPTED = "baseline.json", "accepted.json"
_SEAL = b'"sha256": "%s"'


class Baseline(Data, frozen=True, kw_only=True):
    """What was accepted: all of it the same to the byte when the same is measured again on the same kind of machine.

    ``images``: names in the entry's folder, of references whose weights are trained. ``manifest``: of each component
    that the setting names, module -> what it is, a line each, as in a lock file; baselines from before there were such
    lines have counts alone.
    """

    schema: int = SCHEMA
    id: str
    device_class: str
    asked: Asked
    latents_sha256: str
    images_sha256: str | None = None
    images: tuple[str, ...] = ()
    memory: Memory | None = None
    scores: Scores | None = None
    noise: Noise | None = None
    coverage: CoverageSummary | None = None
    manifest: dict[str, dict[str, str]] | UnsetType = UNSET


class Accepted(Data, frozen=True, kw_only=True):
    """The act of accepting, and what differs from run to run: where it ran, how long it took.

    ``run``: when the run had started. ``files``: SHA-256 of every other file of the entry; ``sha256``: of this one,
    taken with an empty text in its place. ``noise_from``: where the noise floor comes from, if not from this run.
    """

    schema: int = SCHEMA
    by: str
    at: str
    reason: str
    run: str
    commit: str | None
    fingerprint: Fingerprint
    timing: Timing | None
    files: dict[str, str]
    noise_from: str | None = None
    sha256: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline with its acceptance."""

    baseline: Baseline
    accepted: Accepted


def seal(accepted: Accepted) -> bytes:
    """The file of an acceptance, with its own digest in it."""
    plain = encode(msgspec.structs.replace(accepted, sha256=""))
    before, _, after = plain.rpartition(_SEAL % b"")  # a package may have the name, too
    return before + _SEAL % hashlib.sha256(plain).hexdigest().encode() + after


def is_sealed(data: bytes, sha256: str) -> bool:
    """Whether a file's own digest is right; of its bytes, as another version would write other fields."""
    before, found, after = data.rpartition(_SEAL % sha256.encode())
    return bool(found) and hashlib.sha256(before + _SEAL % b"" + after).hexdigest() == sha256


def made_where(record: Record) -> Fingerprint:
    """Raises ``ValueError`` for a record that does not say."""
    if record.fingerprint is None or not record.fingerprint.device_class:
        raise ValueError("its record does not say on which kind of device: made by an older qregress; run it again")
    return record.fingerprint


def baseline_of(record: Record, coverage: CoverageSummary | None, noise: Noise | None) -> Baseline:
    """The lasting part of a record that ran. Raises ``ValueError`` for one that is of an older schema."""
    if record.asked is None or record.latents_sha256 is None:
        raise ValueError("its record does not say what was asked for: made by an older qregress; run it again")
    return Baseline(
        id=record.id,
        device_class=made_where(record).device_class,
        asked=record.asked,
        latents_sha256=record.latents_sha256,
        images_sha256=record.images_sha256,
        memory=record.memory,
        scores=record.scores,
        noise=noise,
        coverage=coverage,
        manifest=lines(record.coverage) or UNSET,
    )


def with_images(baseline: Baseline, record: Record, read: Callable[[str], bytes]) -> tuple[Baseline, dict[str, bytes]]:
    """Add a reference's images, lossless, where they mean anything; ``read`` takes names inside the run's cell.

    Raises ``OSError`` where an image cannot be read.
    """
    if record.setting != REFERENCE or not record.draws:
        return baseline, {}
    kept = image_names(len(record.images), "webp")
    files = {mine: _webp(read(name)) for mine, name in zip(kept, record.images, strict=True)}
    return msgspec.structs.replace(baseline, images=tuple(files)), files


def _webp(png: bytes) -> bytes:
    """Lossless: a drift of one level must show. Method 4 takes twice as long for pocket images and saves nothing."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(out, "WEBP", lossless=True, quality=100, method=3, exact=True)
    return out.getvalue()

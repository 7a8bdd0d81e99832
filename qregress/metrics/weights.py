"""Which weights a score came from. Scores from different weights are different quantities, and are never compared."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from qregress.errors import QregressError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


class MetricError(QregressError):
    """A score cannot be computed or compared. One line: what, where, what was expected, what to do."""


class WeightsId(msgspec.Struct, frozen=True):
    """Identity of a metric's weights.

    ``name`` is the same on every machine (``"st-alex"``, ``"torchmetrics/alex"``, ``"open_clip/pocket"``);
    ``sha256`` is the hex digest of what the metric computes with.
    """

    name: str
    sha256: str


def require_same(a: WeightsId, b: WeightsId) -> None:
    """Raise ``MetricError`` unless both scores came from the same weights.

    The digest decides: a model folder that was only renamed holds the same weights.
    """
    if a.sha256 != b.sha256:
        raise MetricError(
            f"scores from different weights cannot be compared: {a.name} (sha256 {a.sha256[:12]}) against "
            f"{b.name} (sha256 {b.sha256[:12]}); pin one set of weights in [metrics] and score both runs with it"
        )


def digest_file(path: Path) -> str:
    """SHA-256 of a file, hex. 0.7 s per GB. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tensors(tensors: Mapping[str, Tensor], also: str = "") -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors in the order of their names, hex. 0.7 s per GB.

    ``also`` is text that shapes the scores too, such as a preprocessing configuration.
    """
    import torch

    digest = hashlib.sha256(also.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

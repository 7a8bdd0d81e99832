"""Weights: identity, refusal to compare, and a package that stays light."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from qregress.metrics import MetricError, WeightsId, require_same
from qregress.metrics.weights import digest_file, digest_tensors

if TYPE_CHECKING:
    from pathlib import Path


def test_scores_from_different_weights_are_refused() -> None:
    """One line names both, and says what to do."""
    with pytest.raises(MetricError, match=r"st-alex \(sha256 aaaa.*torchmetrics/alex .*pin one set") as caught:
        require_same(WeightsId("st-alex", "aaaa"), WeightsId("torchmetrics/alex", "bbbb"))
    assert "\n" not in str(caught.value)


def test_the_digest_decides_not_the_name() -> None:
    """A retrained model under the old name is another one; a renamed folder is not."""
    require_same(WeightsId("open_clip/local-dir:a", "aaaa"), WeightsId("open_clip/local-dir:b", "aaaa"))
    with pytest.raises(MetricError):
        require_same(WeightsId("open_clip/pocket", "aaaa"), WeightsId("open_clip/pocket", "bbbb"))


def test_digest_of_tensors_covers_names_values_types_and_shapes() -> None:
    """Whatever may change a score changes the digest; the order of a dictionary does not."""
    tensors = {"weight": torch.arange(4.0), "scale": torch.tensor(2.0)}
    digest = digest_tensors(tensors)
    assert digest == digest_tensors(dict(reversed(tensors.items())))
    others = [
        digest_tensors({**tensors, "weight": torch.arange(4.0) + 1e-6}),
        digest_tensors({**tensors, "weight": torch.arange(4.0).reshape(2, 2)}),
        digest_tensors({**tensors, "scale": torch.tensor(2.0, dtype=torch.float16)}),
        digest_tensors({"bias": torch.arange(4.0), "scale": torch.tensor(2.0)}),
        digest_tensors(tensors, also="another crop"),
    ]
    assert len({digest, *others}) == 6


def test_digest_of_a_file_is_what_sha256sum_prints(tmp_path: Path) -> None:
    """So that a user can check it."""
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert digest_file(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_importing_the_package_imports_nothing_heavy() -> None:
    """A configuration is checked without torch, numpy or PIL."""
    code = (
        "import sys, qregress.metrics as m; m.validate_clip_name('pocket'); "
        "print([name for name in ('torch', 'numpy', 'PIL', 'open_clip', 'torchmetrics') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""One unquantized pipeline for all backends, in both half precisions."""

from __future__ import annotations

import pytest
from diffusers import DiffusionPipeline

from qregress.pipelines import load

# Its assertions shall show what they compared, as a test's own do.
pytest.register_assert_rewrite("tests.quantizing")


@pytest.fixture(scope="session")
def pristine() -> DiffusionPipeline:
    """The pocket PixArt-Sigma in float16."""
    return load("pocket:pixart-sigma", "float16", "cpu")


@pytest.fixture(scope="session")
def pristine_bfloat16() -> DiffusionPipeline:
    """The same in bfloat16."""
    return load("pocket:pixart-sigma", "bfloat16", "cpu")

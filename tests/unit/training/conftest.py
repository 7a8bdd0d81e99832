"""The training programs' tests need their optional dependency."""

import pytest

pytest.importorskip("scipy")

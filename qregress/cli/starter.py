"""What ``qregress init`` writes."""

from __future__ import annotations

from importlib import resources

TEST = '''def test_quantized(qregress_cell):
    """Run and judge one cell of qregress.toml."""
    qregress_cell.check()
'''

#: The option is the project's own: a plugin that added it would break every conftest.py that has one already.
CONFTEST = '''"""``pytest --gpu``: run the cells of qregress.toml that need CUDA, on CUDA."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--gpu",
        action="store_true",
        help="run the cells that need CUDA; an error where there is none",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hand it on to qregress, which may be told one of several devices."""
    if config.getoption("--gpu"):
        device = config.option.qregress_device or "cuda"
        if not device.startswith("cuda"):
            raise pytest.UsageError(f"--gpu contradicts --qregress-device={device}")
        config.option.qregress_device = device
'''


def config() -> str:
    """The configuration: the embedded matrix's essential tables, explained."""
    return (resources.files("qregress") / "starter.toml").read_text(encoding="utf-8")

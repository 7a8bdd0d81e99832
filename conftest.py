"""``pytest --gpu``: run the cells of pipelines that list "cuda", on CUDA."""

import pytest

pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option here, not in the plugin: many a conftest has one already."""
    parser.addoption("--gpu", action="store_true", help="run the cells that need CUDA; an error where there is none")


def pytest_configure(config: pytest.Config) -> None:
    """Hand it on to the plugin, which may be told one of several devices."""
    if config.getoption("--gpu"):
        device = config.option.qregress_device or "cuda"
        if not device.startswith("cuda"):
            raise pytest.UsageError(f"--gpu contradicts --qregress-device={device}")
        config.option.qregress_device = device

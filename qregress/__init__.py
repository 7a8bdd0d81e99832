"""Regression gate for quantized diffusion pipelines."""

from qregress._version import __version__
from qregress.errors import ConfigError, QregressError
from qregress.registry import pipeline

__all__ = ["ConfigError", "QregressError", "__version__", "pipeline"]

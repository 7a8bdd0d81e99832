"""Regression gate for quantized diffusion pipelines."""

from qregress._version import __version__
from qregress.errors import ConfigError, QregressError

__all__ = ["ConfigError", "QregressError", "__version__"]

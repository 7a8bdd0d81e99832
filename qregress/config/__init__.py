"""qregress.toml to a validated matrix. Everything that can be known before a model is loaded is checked here."""

from qregress.config.loader import load
from qregress.config.model import EVERYTHING, Baselines, Config, Metrics, Run, baselines_folder, embedded_path, find

__all__ = ["EVERYTHING", "Baselines", "Config", "Metrics", "Run", "baselines_folder", "embedded_path", "find", "load"]

"""What this machine can run, and what is missing: real probes, as facts; how they are shown is ``report/doctor.py``.

Nothing is downloaded or compiled. Only names are imported here; torch is where a probe needs it.
"""

from qregress.doctor.examine import examine
from qregress.doctor.facts import Diagnosis, Fact, Section
from qregress.doctor.pipeline import describe

__all__ = ["Diagnosis", "Fact", "Section", "describe", "examine"]

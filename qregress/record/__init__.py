"""What one run of one cell produced, and what was judged of it. Plain data; the only JSON codec of the package."""

from qregress.record.asked import CALL_ARGUMENTS, Asked, Fingerprint
from qregress.record.base import SCHEMA, Data, Status, Verdict
from qregress.record.cell import Record
from qregress.record.codec import T, decode, encode, read
from qregress.record.measured import Memory, Noise, NoiseVariant, Problem, Scores, Stages, Timing, Trained
from qregress.record.proof import Blame, Coverage, LayerFidelity, ModuleCoverage, Restored, Roundtrip
from qregress.record.run import CellResult, Check, CoverageSummary, LatencySummary, Run

__all__ = [
    "CALL_ARGUMENTS",
    "SCHEMA",
    "Asked",
    "Blame",
    "CellResult",
    "Check",
    "Coverage",
    "CoverageSummary",
    "Data",
    "Fingerprint",
    "LatencySummary",
    "LayerFidelity",
    "Memory",
    "ModuleCoverage",
    "Noise",
    "NoiseVariant",
    "Problem",
    "Record",
    "Restored",
    "Roundtrip",
    "Run",
    "Scores",
    "Stages",
    "Status",
    "T",
    "Timing",
    "Trained",
    "Verdict",
    "decode",
    "encode",
    "read",
]

"""What was asked for, by which records are comparable, and where a record was made, which is evidence alone."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from qregress.record.base import Data


class Fingerprint(Data, frozen=True, kw_only=True):
    """Where a record was made: evidence, never part of a baseline's key.

    ``host``: the processor beside a CUDA device.
    """

    python: str
    platform: str
    device: str
    device_name: str
    device_bytes: int
    threads: int
    packages: dict[str, str]
    device_class: str = ""
    host: str | UnsetType = UNSET


#: A workload's keys that overrule an argument of the pipeline's call -> that argument.
CALL_ARGUMENTS = {
    "height": "height",
    "width": "width",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
}


class Asked(Data, frozen=True, kw_only=True):
    """What was asked for: two records are comparable where this is equal and so is the device class.

    Names of settings and workloads are no part of it, nor is a value that is the default, so that a key that a later
    version adds changes nothing. Nor does it matter whether ``call`` or ``workload`` says an argument of the call. What
    a pipeline's own files say is part of ``source_sha256``, and so is what a factory passes to every call.
    ``initial_sha256``: of the initial noise, as random streams have changed between torch releases.
    """

    source_sha256: str
    call: dict[str, Any]
    setting: dict[str, Any]
    workload: dict[str, Any]
    initial_sha256: str
    reference_dtype: str = "float16"

    @property
    def key(self) -> str:
        """SHA-256 of it all, hex."""
        plain = self.effective
        # 3 and 3.0 are one number to a pipeline, and two texts.
        call = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in plain.call.items()}
        plain = msgspec.structs.replace(plain, call=call)
        return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()

    @property
    def effective(self) -> Asked:
        """With the workload's arguments of the call where the call's are."""
        given = {name: self.workload[key] for key, name in CALL_ARGUMENTS.items() if key in self.workload}
        rest = {key: value for key, value in self.workload.items() if key not in CALL_ARGUMENTS}
        return msgspec.structs.replace(self, call=self.call | given, workload=rest)

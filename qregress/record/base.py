"""What every stored struct is: immutable, of one schema version."""

from __future__ import annotations

from typing import Literal

import msgspec

#: 2 added what a baseline is made of: ``Record.asked``, ``noise``, ``images_sha256`` and ``Fingerprint.device_class``.
#: What videos added since (``frames``, ``motion``) is ``UNSET`` for images and then in no file, so that theirs stay the
#: same to the byte; such a field needs no version. So it is with ``blame`` of cells that did not fail.
SCHEMA = 2

Status = Literal["ran", "crashed", "not-run"]
Verdict = Literal["pass", "fail", "crashed", "new", "void", "waived", "not-run"]


class Data(msgspec.Struct, frozen=True):
    """Base of everything that is stored or crosses a process: immutable."""

"""Which cells of a run that was cut off stand, so that they need not be run again."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from qregress import machine, pipelines
from qregress.errors import SchemaError, one_line
from qregress.matrix import REFERENCE, Cell, Setting, canonical
from qregress.pipelines.digest import source_sha256
from qregress.pipelines.folder import Described
from qregress.produce.protocol import Options
from qregress.record import Asked, Record
from qregress.store.atomic import write_atomic
from qregress.store.run import RunFolder

_OPTIONS = ".options.json"


def remember(folder: Path, options: Options) -> None:
    """Keep how the cells of a run are produced; ``same_options`` compares with it."""
    write_atomic(folder / _OPTIONS, msgspec.json.encode(_lasting(options)))


def same_options(folder: Path, options: Options) -> bool:
    """Whether a run's cells were produced in the same way: metrics, pairs, device."""
    path = folder / _OPTIONS
    return path.exists() and path.read_bytes() == msgspec.json.encode(_lasting(options))


def _lasting(options: Options) -> Options:
    """Without where results go, which may have moved."""
    return msgspec.structs.replace(options, out="")


class Earlier:
    """What the run that is resumed has left in its folder."""

    def __init__(self, folder: RunFolder, device: str) -> None:
        self._folder = folder
        self._device = device
        #: Cell -> why it does not stand, or ``None``, once it was looked at.
        self._why_not: dict[str, str | None] = {}

    def standing(self, cell: Cell) -> Record | None:
        """The record of a cell that need not be run again; what is left of any other is removed.

        A reference that is run again takes along what was held against the old one.
        """
        reference = Cell(pipeline=cell.pipeline, setting=Setting(name=REFERENCE), workload=cell.workload)
        if self._look(reference) is not None and not cell.setting.is_reference:
            self.drop(cell, "its reference is run again")
        return self._folder.record(cell.id) if self._look(cell) is None else None

    def why_not(self, cell: Cell) -> str | None:
        """Why a cell that had been run is run again; ``None`` where it stands, or was not there."""
        return self._why_not.get(cell.id) or None

    def drop(self, cell: Cell, why: str) -> None:
        """A cell does not stand for another reason. What is run for it in this run is not cleared again."""
        if self._why_not.get(cell.id) is None:
            self._why_not[cell.id] = why if self._folder.has_record(cell.id) else ""
            self._folder.clear(cell.id)

    def _look(self, cell: Cell) -> str | None:
        if cell.id not in self._why_not:
            try:
                why = why_not(self._folder.record(cell.id), cell, self._device)
            except (msgspec.MsgspecError, UnicodeDecodeError, SchemaError) as error:
                why = f"its record cannot be read: {one_line(error)}"
            self._why_not[cell.id] = None
            if why is not None:
                self.drop(cell, why)
        return self._why_not[cell.id]


def why_not(record: Record | None, cell: Cell, device: str) -> str | None:
    """Why a record of an earlier part of a run does not stand for a cell; ``None`` where it does.

    It does where it ran to its end, the same is asked for, and machine and libraries are the same: an upgrade that met
    half of a run would be judged by the other half.
    """
    if record is None or record.status != "ran" or record.asked is None or record.fingerprint is None:
        return "it did not end"
    there = record.fingerprint
    now = machine.versions(device)
    if there.packages != now:
        changed = sorted(name for name in {*now, *there.packages} if now.get(name) != there.packages.get(name))
        return f"another version of {', '.join(changed)}"
    name = machine.device_name(device)
    # A CPU's is followed by the instruction set that torch uses; a name may have parentheses of its own.
    if not name or there.device != device or name not in {there.device_name, there.device_name.rpartition(" (")[0]}:
        return f"it ran on {there.device_name}, this is {name or 'a device without a name'}"
    if cell.pipeline.factory is not None:
        return "what a registered function returns is known only when it has been called"
    found = pipelines.find(cell.pipeline)
    if not isinstance(found, Described):
        return "its source is not known before it is loaded"
    asked = Asked(
        source_sha256=_digest(cell.pipeline.source),
        call=found.call | cell.pipeline.call,
        setting=canonical(cell.setting),
        workload=canonical(cell.workload),
        initial_sha256=record.asked.initial_sha256,  # follows from the rest
        reference_dtype=cell.setting.dtype if cell.setting.reference == "same-dtype" else "float16",
    )
    return None if asked.key == record.asked.key else "something else was asked for"


@lru_cache
def _digest(source: str) -> str:
    """Of files that a run reads anyway, once in it."""
    found = pipelines.whole(pipelines.check(source))
    return source_sha256(found)

"""Stands in for workers, to test the wiring alone: copied into a test's folder and registered by its conftest.py.

``behaviour.json`` beside it says by cell id what becomes of a cell: ``{"do": "crash"}`` (or ``"interrupt"``,
``"raise"``, ``"hang"``, ``"not-run"``), ``"lpips"``, ``"pairs"``, ``"seconds"``, ``"static"`` (bytes), ``"color"`` (of
its images), ``"black"`` (the sanity check finds that), ``"missed"`` (a module that is not quantized), ``"unsteady"``
(its reference gave other bits), ``"noise": "crash"`` (or ``"interrupt"``, ``"decline"``), ``"blame"`` likewise. Every
cell produced adds a line to ``produced.txt``, and one with the id of its process to ``processes.txt``; every noise
floor measured one to ``noise.txt``, every blame found one to ``blame.txt``, every producer that was ended one to
``closed.txt``. What all cells have is under ``"*"``: ``"source"``, the digest of their pipeline.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from qregress import machine
from qregress.errors import Unavailable
from qregress.matrix import Cell, canonical
from qregress.produce.client import Crash, OnEvent
from qregress.produce.protocol import Options, Progress, Say
from qregress.record import (
    Asked,
    Blame,
    Coverage,
    Fingerprint,
    Memory,
    ModuleCoverage,
    Noise,
    NoiseVariant,
    Problem,
    Record,
    Restored,
    Scores,
    Timing,
)
from qregress.store.run import RunFolder

HERE = Path(__file__).parent


class Producers:
    """What the plugin looks up under the name ``qregress-producer``."""

    def start(self, options: Options, log: Path, deadline_s: float) -> FakeProducer:
        """Takes the place of ``Worker``."""
        return FakeProducer(options, log, deadline_s)


class FakeProducer:
    """A ``Producer`` whose cells take no time."""

    def __init__(self, options: Options, log: Path, deadline_s: float) -> None:
        self._folder = RunFolder(Path(options.out))
        self._log, self._deadline_s, self._device = log, deadline_s, options.device

    def produce(self, cell: Cell, resolve: tuple[float, ...], on_event: OnEvent) -> None:
        """Leave the record of one cell, and of its reference."""
        with (HERE / "produced.txt").open("a") as stream:
            stream.write(f"{cell.id}\n")
        with (HERE / "processes.txt").open("a") as stream:
            stream.write(f"{os.getpid()} {cell.id}\n")
        behaviour = _behaviour()
        mine = behaviour.get(cell.id, {})
        on_event(
            Say(f"producing {cell.id} on {self._device}, to decide between {resolve}, within {self._deadline_s:g} s")
        )
        action: Callable[[str], None] | None = ACTIONS.get(mine.get("do", ""))
        if action is not None:
            action(str(self._log))
        for done in (1, 2):
            on_event(Progress(cell.id, "images", done, 2))
        if self._folder.record(cell.reference_id) is None:
            self._write(cell, cell.reference_id, "reference", behaviour.get(cell.reference_id, {}))
        self._write(cell, cell.id, cell.setting.name, mine)

    def measure_noise(self, cell: Cell, on_event: OnEvent) -> None:  # noqa: ARG002
        """Nothing that may not matter has moved anything."""
        with (HERE / "noise.txt").open("a") as stream:
            stream.write(f"{cell.id}\n")
        action = ACTIONS.get(_behaviour().get(cell.id, {}).get("noise", ""))
        if action is not None:
            action(str(self._log))
        record = self._folder.record(cell.id)
        assert record is not None
        still = (0.0,) * len(record.prompts)
        noise = Noise(variants=(NoiseVariant(name="again", lpips=still, clip=still, latents=still, pixels=still),))
        self._folder.write_record(msgspec.structs.replace(record, noise=noise))

    def find_blame(self, cell: Cell, prompts: tuple[int, ...], on_event: OnEvent) -> None:
        """All of it is the second block's."""
        with (HERE / "blame.txt").open("a") as stream:
            stream.write(f"{cell.id}\n")
        action = ACTIONS.get(_behaviour().get(cell.id, {}).get("blame", ""))
        if action is not None:
            action(str(self._log))
        on_event(Progress(cell.id, "blame", 2, 2))
        record = self._folder.record(cell.id)
        assert record is not None
        found = Blame(
            score="lpips",
            prompts=prompts,
            distance=0.2,
            components=(Restored(name="transformer", distance=0.0),),
            component="transformer",
            blocks=(Restored(name="blocks.1", distance=0.02), Restored(name="blocks.0", distance=0.21)),
        )
        self._folder.write_record(msgspec.structs.replace(record, blame=found))

    def close(self) -> None:
        """Nothing to end; that it was asked is kept."""
        with (HERE / "closed.txt").open("a") as stream:
            stream.write(f"{self._log.name}\n")

    def _write(self, cell: Cell, cell_id: str, setting: str, mine: dict[str, Any]) -> None:
        folder = self._folder.cell(cell_id)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        names = tuple(f"images/{index:02d}.png" for index in range(len(cell.workload.prompts)))
        for name in names:
            Image.new("RGB", (8, 8), mine.get("color", "red")).save(folder / name)
        reference, count, pairs = setting == "reference", len(names), mine.get("pairs", 6)
        here = Fingerprint(
            python="3",
            platform="test",
            device="cpu",
            device_name=machine.device_name(self._device),
            device_bytes=0,
            threads=1,
            packages=machine.versions("cpu"),
            device_class=mine.get("device_class", "cpu-test"),
        )
        record = Record(
            id=cell_id,
            pipeline=cell.pipeline.name,
            setting=setting,
            workload=cell.workload.name,
            status="not-run" if mine.get("do") == "not-run" else "ran",
            message="no compiler" if mine.get("do") == "not-run" else None,
            prompts=cell.workload.prompts,
            images=() if mine.get("do") == "not-run" else names,
            memory=Memory(
                storage_bytes=1000,
                static_bytes=mine.get("static", 1000 if reference else 500),
                peak_bytes=2000,
                reserved_bytes=None,
                load_peak_bytes=1000,
                components={"transformer": 1000},
            ),
            timing=Timing(
                samples_s=(mine.get("seconds", 1.0),) * pairs, reference_s=() if reference else (1.0,) * pairs
            ),
            scores=Scores(
                lpips=() if reference else (mine.get("lpips", 0.01),) * count,
                clip=(30.0,) * count,
                clip_reference=() if reference else (30.5,) * count,
                problems=(Problem(prompt=0, kind="black", detail="mean 0"),) if "black" in mine else (),
            ),
            coverage={"transformer": Coverage(modules=(_missed(mine["missed"]),))} if "missed" in mine else {},
            reference_repeatable=False if "unsteady" in mine else None,
            fingerprint=here,
            latents_sha256=mine.get("latents", "0" * 64),
            images_sha256=hashlib.sha256(mine.get("color", "red").encode()).hexdigest(),
            asked=Asked(
                source_sha256=mine.get("source") or _behaviour().get("*", {}).get("source", "2" * 64),
                call={},
                setting=canonical(cell.setting) if not reference else {},
                workload=canonical(cell.workload),
                initial_sha256="3" * 64,
            ),
        )
        self._folder.write_record(record)


def _behaviour() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((HERE / "behaviour.json").read_text())
    return found


def _missed(name: str) -> ModuleCoverage:
    return ModuleCoverage(
        name=name, module="Linear", expected="int8", found=None, tensor="Tensor", dtype="float16", bytes=8
    )


def _crash(log: str) -> None:
    raise Crash("the worker was ended by SIGSEGV; it was at: images 1/2", f"last words in {log}")


def _interrupt(log: str) -> None:
    raise KeyboardInterrupt(log)


def _raise(log: str) -> None:
    raise ZeroDivisionError(log)


def _decline(log: str) -> None:
    raise Unavailable(f"nobody knows, says {Path(log).name}")


def _hang(_: str) -> None:
    threading.Event().wait()


ACTIONS: dict[str, Callable[[str], None]] = {
    "crash": _crash,
    "interrupt": _interrupt,
    "raise": _raise,
    "decline": _decline,
    "hang": _hang,
}

"""The session's end of a worker: start it, feed it, watch its deadline, and say how it died. No torch."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qregress.errors import ProduceError, Unavailable
from qregress.matrix import Cell
from qregress.produce.protocol import (
    Declined,
    Done,
    Event,
    Failed,
    FindBlame,
    MeasureNoise,
    Options,
    Produce,
    Progress,
    Request,
    pack,
    unpack_event,
)

if TYPE_CHECKING:
    from qregress.produce.bench import Bench

OnEvent = Callable[[Event], None]

_TAIL_BYTES = 4000
#: OpenMP threads that wait by spinning steal the core from the thread they wait for as soon as anything else runs: one
#: denoiser step took 60 ms with this and 160 to 1120 ms without, beside one busy process on two cores.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}


class Crash(ProduceError):
    """A cell ended without a record: it raised, died or ran over its deadline. ``log`` says what it had printed."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class Producer(Protocol):
    """Runs cells of one pipeline; records lie on disk afterwards."""

    def produce(self, cell: Cell, resolve: tuple[float, ...], on_event: OnEvent) -> None:
        """Run one cell. Raises ``Crash``, after which the producer must be closed."""

    def measure_noise(self, cell: Cell, on_event: OnEvent) -> None:
        """Add the noise floor to the record of the cell that ran last.

        Raises as ``produce`` does, and ``Unavailable``, after which the producer is as it was.
        """

    def find_blame(self, cell: Cell, prompts: tuple[int, ...], on_event: OnEvent) -> None:
        """Add which part carries the loss of these prompts to the record of the cell that ran last. Raises likewise."""

    def close(self) -> None:
        """End it, and all that it started."""


class Worker:
    """A process of its own with its own session, so that a crash, a hang or Ctrl-C reaches only one side."""

    def __init__(self, options: Options, log: Path, deadline_s: float) -> None:
        self._options = options
        self._log = log
        self._deadline_s = deadline_s
        log.parent.mkdir(parents=True, exist_ok=True)
        request_read, self._requests = os.pipe()
        self._events, event_write = os.pipe()
        command = [sys.executable, "-m", "qregress.produce.worker", str(request_read), str(event_write)]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=(request_read, event_write),
                start_new_session=True,
                env=_PASSIVE | os.environ,
            )
        os.close(request_read)
        os.close(event_write)
        self._buffer = b""
        self._closed = False

    @property
    def pid(self) -> int:
        """The process id, which is its process group's too."""
        return self._process.pid

    def produce(self, cell: Cell, resolve: tuple[float, ...], on_event: OnEvent) -> None:
        """See ``Producer``."""
        self._ask(Produce(cell, self._options, resolve), on_event)

    def measure_noise(self, cell: Cell, on_event: OnEvent) -> None:
        """See ``Producer``."""
        self._ask(MeasureNoise(cell, self._options), on_event)

    def find_blame(self, cell: Cell, prompts: tuple[int, ...], on_event: OnEvent) -> None:
        """See ``Producer``."""
        self._ask(FindBlame(cell, self._options, prompts), on_event)

    def _ask(self, request: Request, on_event: OnEvent) -> None:
        """Send a request and wait for its end."""
        try:
            os.write(self._requests, pack(request))
        except BrokenPipeError:
            raise Crash(f"the worker {self._how_it_died()} before this cell", self._tail()) from None
        deadline = time.monotonic() + self._deadline_s
        stage = "starting"
        while True:
            line = self._read_line(deadline)
            if line is None:
                self.close()
                limit = f"no end after {self._deadline_s:g} s ([run] deadline), killed"
                raise Crash(f"{limit}; it was at: {stage}", self._tail())
            if not line:
                raise Crash(f"the worker {self._how_it_died()}; it was at: {stage}", self._tail())
            event = unpack_event(line)
            if isinstance(event, Done):
                return
            if isinstance(event, Declined):
                raise Unavailable(event.message)
            if isinstance(event, Failed):
                raise Crash(event.message, event.details)
            if isinstance(event, Progress):
                stage = f"{event.stage} {event.done}/{event.total}"
            on_event(event)

    def close(self) -> None:
        """Kill the process group and reap it."""
        if self._closed:
            return
        self._closed = True
        os.close(self._requests)
        os.close(self._events)
        self._end()

    def _end(self) -> int:
        """Kill what is left of its process group and reap it; returns the exit code, negative for a signal."""
        if self._process.returncode is None:  # not reaped yet: the group's number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _read_line(self, deadline: float) -> bytes | None:
        """The next line, empty at the end of the stream, ``None`` when the deadline has passed."""
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            chunk = os.read(self._events, 65536)
            if not chunk:
                return b""
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _how_it_died(self) -> str:
        if self._process.returncode is None:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # not reaped: see _end
        code = self._end()
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"

    def _tail(self) -> str:
        """The end of what it printed."""
        data = self._log.read_bytes() if self._log.exists() else b""
        return data[-_TAIL_BYTES:].decode("utf-8", "replace")


class InProcess:
    """Runs cells in this process, for a debugger; nothing isolates a crash."""

    def __init__(self, options: Options) -> None:
        os.environ.update(_PASSIVE | os.environ)  # read when torch is first imported, if it is not yet
        self._options = options
        self._bench: Bench | None = None

    def produce(self, cell: Cell, resolve: tuple[float, ...], on_event: OnEvent) -> None:
        """See ``Producer``; errors are raised as they are."""
        self._bench_for(cell, on_event).run(cell, resolve)

    def measure_noise(self, cell: Cell, on_event: OnEvent) -> None:
        """See ``Producer``."""
        self._bench_for(cell, on_event).measure_noise(cell)

    def find_blame(self, cell: Cell, prompts: tuple[int, ...], on_event: OnEvent) -> None:
        """See ``Producer``."""
        self._bench_for(cell, on_event).find_blame(cell, prompts)

    def _bench_for(self, cell: Cell, on_event: OnEvent) -> Bench:
        from qregress.produce.bench import Bench

        if self._bench is None:
            self._bench = Bench(cell.pipeline, self._options, on_event)
        return self._bench

    def close(self) -> None:
        """Let go of the weights."""
        self._bench = None

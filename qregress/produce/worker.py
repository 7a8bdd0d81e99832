"""The process that holds a pipeline: requests in on one pipe, events out on another.

Run as ``python -m qregress.produce.worker IN OUT`` with two inherited file descriptors. Whatever libraries print goes
to this process's own output, which the session captures.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from qregress.errors import FactoryError, QregressError, Unavailable, typed_line
from qregress.machine import wake
from qregress.produce.protocol import (
    Declined,
    Done,
    End,
    Event,
    Failed,
    FindBlame,
    MeasureNoise,
    Request,
    pack,
    unpack_request,
)

if TYPE_CHECKING:
    from qregress.produce.bench import Bench


def main(arguments: list[str]) -> int:
    """Serve requests until the session closes its end, or is gone."""
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    inbox, outbox = int(arguments[0]), int(arguments[1])
    threading.Thread(target=_listen, args=(inbox, requests), daemon=True).start()

    def emit(event: Event) -> None:
        os.write(outbox, pack(event))

    bench: Bench | None = None
    while True:
        request = requests.get()
        try:
            if bench is None:
                if request.options.device.startswith("cuda"):
                    # Libraries take seconds to import, and the driver a second or two for what they ask of it first.
                    threading.Thread(target=wake, args=(request.options.device,), daemon=True).start()
                bench = _import_bench()(request.cell.pipeline, request.options, emit)
        except Exception as error:  # noqa: BLE001 - see answer
            emit(failed(request, error))
        else:
            emit(answer(bench, request))


def _import_bench() -> type[Bench]:
    """The bench, and libraries, imported with the garbage collector off and then kept out of its sight for good.

    The collector walks over all that it knows time and again while four thousand modules are imported, for a second or
    more, and then several times in every cell, for memory to be exact: half a second each time. What is kept out of its
    sight is out of the manifest's too, which looks for original weights among all that Python knows: there is none yet.
    """
    first = "qregress.produce.bench" not in sys.modules
    gc.disable()
    try:
        from qregress.produce.bench import Bench
    finally:
        gc.enable()
    if first:  # else there may be what an attempt that failed has left
        gc.freeze()
    return Bench


def answer(bench: Bench, request: Request) -> End:
    """Do what is asked, and say how it ended."""
    try:
        if isinstance(request, MeasureNoise):
            bench.measure_noise(request.cell)
        elif isinstance(request, FindBlame):
            bench.find_blame(request.cell, request.prompts)
        else:
            bench.run(request.cell, request.resolve)
    except Unavailable as error:
        return Declined(request.cell.id, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises ends this cell and is reported
        return failed(request, error)
    return Done(request.cell.id)


def failed(request: Request, error: Exception) -> Failed:
    """In one line, with the traceback of what is no error of ours."""
    return Failed(request.cell.id, describe(error), details(error))


def describe(error: BaseException) -> str:
    """One line; of our own errors the message, which says all there is to say."""
    if isinstance(error, QregressError):
        return str(error)
    return typed_line(error, 500)


def details(error: Exception) -> str:
    """The traceback of what is no error of ours: a library's, or of the user's own factory."""
    cause = error.__cause__ if isinstance(error, FactoryError) else error
    ours = cause is None or isinstance(cause, QregressError)
    return "" if ours else "".join(traceback.format_exception(cause))


def _listen(inbox: int, requests: queue.SimpleQueue[Request]) -> None:
    """Pass requests on; when the session's end of the pipe closes, end at once, whatever is running.

    A thread of its own sees that while the main thread computes, so that no worker outlives its session and holds
    device memory. Compilers that it started belong to its process group and end with it.
    """
    try:
        with os.fdopen(inbox, "rb") as stream:
            for line in stream:
                requests.put(unpack_request(line))
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

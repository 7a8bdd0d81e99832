"""What crosses the pipe between the session and a worker: one JSON object a line. No torch."""

from __future__ import annotations

import msgspec

from qregress.matrix import Cell


class Options(msgspec.Struct, frozen=True):
    """How cells of a run are produced.

    ``resolve``: latency ratios that the interval should not contain when sampling stops. ``pairs``: fewest
    interleaved pairs. ``time_s``: no pair is added after that long.
    """

    device: str
    out: str
    lpips: str
    clip: str
    pairs: int
    time_s: float


class Produce(msgspec.Struct, frozen=True, tag="produce"):
    """Run one cell, its reference first where that has not run yet."""

    cell: Cell
    options: Options
    resolve: tuple[float, ...] = ()


class MeasureNoise(msgspec.Struct, frozen=True, tag="noise"):
    """Add the noise floor to the record of the cell that ran last."""

    cell: Cell
    options: Options


class FindBlame(msgspec.Struct, frozen=True, tag="blame"):
    """Add to the record of the cell that ran last which of its parts carries the loss of some of its prompts."""

    cell: Cell
    options: Options
    prompts: tuple[int, ...]


class Say(msgspec.Struct, frozen=True, tag="say"):
    """A line for the screen."""

    text: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Where the worker is: which cell, which stage, how far in it."""

    cell: str
    stage: str
    done: int
    total: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The record of this cell lies on disk."""

    cell: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """This cell raised; ``message`` is one line, ``details`` the traceback."""

    cell: str
    message: str
    details: str


class Declined(msgspec.Struct, frozen=True, tag="declined"):
    """What was asked of this cell cannot be told, and why; nothing has happened."""

    cell: str
    message: str


#: What ends a request.
End = Done | Failed | Declined
Event = Say | Progress | End
Request = Produce | MeasureNoise | FindBlame

_encoder = msgspec.json.Encoder()
_events = msgspec.json.Decoder(Event)
_requests = msgspec.json.Decoder(Request)


def pack(message: Event | Request) -> bytes:
    """One line."""
    return _encoder.encode(message) + b"\n"


def unpack_event(line: bytes) -> Event:
    """Raises ``msgspec.ValidationError``."""
    event: Event = _events.decode(line)
    return event


def unpack_request(line: bytes) -> Request:
    """Raises ``msgspec.ValidationError``."""
    request: Request = _requests.decode(line)
    return request

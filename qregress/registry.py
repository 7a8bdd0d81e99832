"""Pipelines registered with ``@qregress.pipeline``. Imported with the plugin by every pytest run: stdlib only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: On a registered function, what it was registered as: an entry point's module may have been imported long before.
_ATTRIBUTE = "__qregress_pipelines__"


@dataclass(frozen=True, eq=False)  # call may hold arrays
class Registration:
    """A factory as it was registered, not checked yet: a decorator that raises would end the import of a conftest.py.

    ``module``, ``file`` and ``line``: the module body that was being executed; importing it again registers again.
    ``file`` is ``None`` where there was none. ``namespace`` tells one import of a file from another.
    """

    name: Any
    function: Callable[..., Any]
    components: Any
    devices: Any
    trained: bool
    call: Any
    module: str
    file: str | None
    line: int
    namespace: Mapping[str, Any] | None = field(repr=False)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.file}, line {self.line}" if self.file is not None else getattr(self.function, "__name__", "?")

    def repeats(self, other: Registration) -> bool:
        """Whether this is the other one again: the same line of a file that was imported twice."""
        return (self.file, self.line) == (other.file, other.line) and self.namespace is not other.namespace


_registered: list[Registration] = []


def pipeline(
    name: str,
    *,
    components: Sequence[str] | None = None,
    devices: Sequence[str] = ("cpu", "cuda"),
    trained: bool = True,
    call: Mapping[str, Any] | None = None,
) -> Callable[[_Function], _Function]:
    """Register a function that makes a pipeline under test, for one that no configuration can name.

    The function is called as ``function(dtype, device)``, with a ``torch.dtype`` and ``"cpu"``, ``"cuda"`` or
    ``"cuda:N"``, once per compute dtype, in the worker process; never while tests are collected. It returns a new,
    unquantized ``DiffusionPipeline``, denoiser and text encoders in ``dtype``, on any device. The VAE's dtype is its
    own business: float32 on a CPU, where half-precision convolutions are unusably slow. The worker imports the file
    again to find the function, so register on import, and import torch and diffusers inside the function.

    Args:
        name: The pipeline's name in cells' ids and in budgets.
        components: Components with weights, by attribute name; then a setting that names another is an error before
            anything is loaded. Without them it ends that setting's cells.
        devices: Kinds of device on which its cells run, of ``"cpu"`` and ``"cuda"``.
        trained: Whether its images mean anything; where not, they are not scored.
        call: Arguments of every pipeline call, of any type: a control image, ``{"height": 512}``.

    What is wrong with these is told when the configuration is read: one line, exit code 4.
    """
    given: Any = name

    def register(function: _Function) -> _Function:
        body = _module_body()
        registration = Registration(
            name=None if given is function else given,
            function=function,
            components=components,
            devices=devices,
            trained=trained,
            call=call,
            module=body.f_globals["__name__"] if body is not None else "",
            file=body.f_globals["__spec__"].origin if body is not None else None,
            line=body.f_lineno if body is not None else 0,
            namespace=body.f_globals if body is not None else None,
        )
        _registered.append(registration)
        with suppress(AttributeError):  # of an object with slots: it can be in a conftest.py, not in an entry point
            setattr(function, _ATTRIBUTE, (*registrations_of(function), registration))
        return function

    # The parentheses were forgotten: registered without a name, so that it is told instead of lost.
    return register(given) if callable(given) else register


def registered() -> tuple[Registration, ...]:
    """All registrations of this process, in their order."""
    return tuple(_registered)


def registrations_of(function: object) -> tuple[Registration, ...]:
    """What a function was registered as, whenever that was."""
    found: tuple[Registration, ...] = getattr(function, _ATTRIBUTE, ())
    return found


def add(registrations: Sequence[Registration]) -> None:
    """Those of an entry point."""
    _registered.extend(registration for registration in registrations if registration not in _registered)


def remember() -> Callable[[], None]:
    """What will forget all that is registered from now on: a pytest run must not see the last one's of its process."""
    before = list(_registered)

    def forget() -> None:
        _registered[:] = before

    return forget


@contextmanager
def scope() -> Iterator[None]:
    """Forget at its end what was registered in it."""
    forget = remember()
    try:
        yield
    finally:
        forget()


def _module_body() -> FrameType | None:
    """The module body whose execution led here; ``None`` outside of an import, as in a hook that pytest calls."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - what inspect.currentframe calls
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") == "__main__":
        return None
    spec = frame.f_globals.get("__spec__")
    return frame if spec is not None and spec.has_location else None

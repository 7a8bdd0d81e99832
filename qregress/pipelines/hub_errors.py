"""What can go wrong between a hub and its cache, in one line each."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from qregress.errors import QregressError, SourceError, typed_line

_T = TypeVar("_T")

#: Of OSError.errno: a disk or a quota.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Packages whose errors are those of a connection; which of them the hub's client uses depends on its version.
_CONNECTIONS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
#: Names that their errors have where no connection came about.
_UNREACHED = {"ConnectError", "ConnectTimeout", "NewConnectionError", "NameResolutionError", "gaierror"}
_UNAUTHORIZED, _FORBIDDEN = 401, 403


class Address(NamedTuple):
    """A repository and what to read of it: a tag or a commit."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"

    @property
    def page(self) -> str:
        """Where people read about it."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.repository}"


@contextmanager
def told(address: Address, instead: Callable[[], _T | None] | None = None) -> Iterator[list[_T]]:
    """Turn whatever the hub's client raises into a ``SourceError`` of one line.

    ``instead``: what to fall back on where the hub cannot be reached; if it returns anything, that is what the list
    holds and nothing is raised.
    """
    found: list[_T] = []
    try:
        yield found
    except QregressError:
        raise
    except Exception as error:
        chain = list(_chain(error))
        other = instead() if instead is not None and _is_out_of_reach(chain) else None
        if other is None:
            raise SourceError(f"hub:{address}: {_why(address, chain)}") from error
        found.append(other)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _why(address: Address, chain: list[BaseException]) -> str:
    """The first that holds: an error often comes wrapped in one that says less."""
    from huggingface_hub import constants, errors

    def of(kind: type[BaseException]) -> bool:
        return any(isinstance(error, kind) for error in chain)

    hub, cache, log_in = constants.ENDPOINT, constants.HF_HUB_CACHE, "log in (`hf auth login`, or HF_TOKEN)"
    status = next((code for error in chain if (code := _status(error)) is not None), None)
    first = next((error for error in chain if _is_connection(error)), chain[0])
    known = (
        (
            any(isinstance(error, OSError) and error.errno in _FULL for error in chain),
            f"the disk of {cache} is full; make room, or set HF_HOME to a folder on another disk",
        ),
        (
            of(errors.GatedRepoError) or status == _FORBIDDEN,
            f"it is gated, and may not be read from here; accept its conditions on {address.page} and {log_in}",
        ),
        (
            of(errors.RevisionNotFoundError),
            f"has no such revision; name a commit of {address.page}/commits/main, or a tag",
        ),
        (
            of(errors.RepositoryNotFoundError) or status == _UNAUTHORIZED,
            f"{hub} has no such repository, or it is private; look at its name, or {log_in}",
        ),
        (of(errors.HFValidationError), f"is no repository's name: {_text(chain[0])}"),
        (
            of(errors.OfflineModeIsEnabled),
            f"is not wholly in {cache}, and HF_HUB_OFFLINE keeps it from being fetched; run once without it",
        ),
        (status is not None, f"{hub} answered {status}; try again later"),
        (_is_out_of_reach(chain), f"is not wholly in {cache}, and {hub} cannot be reached ({_text(first)})"),
        (
            _is_connection(first) or "Consistency check failed" in str(first),
            f"the download was interrupted ({_text(first)}); run it again: what is whole is kept in {cache}",
        ),
        (True, f"cannot be fetched: {_text(chain[0])}"),
    )
    return next(text for holds, text in known if holds)


def _is_out_of_reach(chain: list[BaseException]) -> bool:
    """Whether nobody answered at all."""
    from huggingface_hub import errors

    offline = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionRefusedError)
    return any(isinstance(error, offline) or type(error).__name__ in _UNREACHED for error in chain)


def _is_connection(error: BaseException) -> bool:
    """Whether it is one of a connection, and none that carries an answer."""
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return (bool(packages & _CONNECTIONS) or isinstance(error, (ConnectionError, TimeoutError))) and _status(
        error
    ) is None


def _status(error: BaseException) -> int | None:
    """Of an HTTP answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _text(error: BaseException) -> str:
    return typed_line(error, 200).removesuffix(": ")

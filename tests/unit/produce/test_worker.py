"""How a request to a worker ends."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from qregress.errors import FactoryError, ProduceError, Unavailable
from qregress.produce.protocol import Declined, Done, End, Failed, FindBlame, MeasureNoise, Options, Produce, Request
from qregress.produce.worker import answer
from tests.making import INT8, make_cell

OPTIONS = Options(device="cpu", out="out", lpips="st-alex", clip="pocket", pairs=1, time_s=1.0)
REQUESTS = (
    Produce(make_cell(), OPTIONS),
    MeasureNoise(make_cell(), OPTIONS),
    FindBlame(make_cell(), OPTIONS, prompts=(0,)),
)


class _Bench:
    """Raises what it is given, whatever is asked."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def run(self, *_: object) -> None:
        if self._error is not None:
            raise self._error

    measure_noise = find_blame = run


def test_libraries_are_kept_from_the_collector_once() -> None:
    """Given a process that imports them, then the collector is on again, and sees what came later."""
    code = """
import gc
from qregress.produce.worker import _import_bench
for _ in range(2):
    later = [object()]
    _import_bench()
    print(gc.isenabled(), gc.get_freeze_count() > 10_000, any(each is later for each in gc.get_objects()))
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.splitlines() == ["True True False", "True True True"]


def ends(error: Exception | None, request: Request) -> End:
    """The worker's answer."""
    bench: Any = _Bench(error)
    return answer(bench, request)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_each_request(request_: Request) -> None:
    """Given what cannot be told, then that is no failure; our own errors are one line, others have their traceback."""
    assert ends(None, request_) == Done(INT8)
    assert ends(Unavailable("only there"), request_) == Declined(INT8, "only there")
    assert ends(ProduceError("no such component"), request_) == Failed(INT8, "no such component", "")
    assert ends(FactoryError("it returned None"), request_) == Failed(INT8, "it returned None", "")
    bug = ends(ZeroDivisionError("a\nbug"), request_)
    assert isinstance(bug, Failed)
    assert bug.message == "ZeroDivisionError: a bug"
    assert bug.details.startswith("Traceback")

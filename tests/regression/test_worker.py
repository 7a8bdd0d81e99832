"""Real workers that crash, hang and are left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qregress import config
from qregress.errors import Unavailable
from qregress.produce.client import Crash, Worker
from qregress.produce.protocol import Options
from tests.regression.harness import FEW

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.regression.harness import Overlay, Runner

INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'
QUANTIZE = "    if include is not None:\n        include = [include]"
TOKEN = "QREGRESS_TEST_RUN"


#: Setting -> the weight type that something happens to, what does, and what is said of it.
CRASHES = {
    "segfault": ("qfloat8_e4m3fn", "import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
    "out-of-memory": ("qfloat8_e5m2", "raise MemoryError('tried to allocate 8 GiB')", "MemoryError: tried to allocate"),
    "exit": ("qfloat8_e4m3fnuz", "import os; print('last words', flush=True); os._exit(3)", "ended with exit code 3"),
}
HANG = f'    if exclude and "proj_out" in exclude:\n        import threading; threading.Event().wait()\n{QUANTIZE}'
CRASHING = """
[settings.segfault]
weights = { transformer = "float8" }
[settings.out-of-memory]
weights = { transformer = "float8_e5m2" }
[settings.exit]
weights = { transformer = "float8_e4m3fnuz" }
[settings.hang]
weights = { transformer = "int8" }
exclude = ["proj_out"]
[settings.healthy]
weights = { transformer = "int8" }
"""


def test_a_crash_ends_one_cell(run_qregress: Runner, overlay: Overlay) -> None:
    """Every cell that crashes says how, one that hangs is killed; the next is judged all the same, by a new worker."""
    lines = "".join(
        f'    if str(weights).endswith("{kind}"):\n        {action}\n' for kind, action, _ in CRASHES.values()
    )
    path = overlay.replace("optimum.quanto", "quantize.py", QUANTIZE, lines + HANG)
    finished = run_qregress(CRASHING, overlay=path, deadline="60 s", **FEW)
    cells = {cell.setting: cell for cell in finished.run.cells}
    crashed = dict.fromkeys([*CRASHES, "hang"], "crashed")
    assert finished.code == 1, finished.output
    assert {name: cell.verdict for name, cell in cells.items()} == {"reference": "pass", "healthy": "pass", **crashed}
    for name, (_, _, said) in CRASHES.items():
        assert said in (cells[name].message or ""), finished.output
    assert cells["hang"].message == "no end after 60 s ([run] deadline), killed; it was at: quantize 0/1"
    assert "last words" in finished.output


def test_a_worker_killed_between_cells(tmp_path: Path) -> None:
    """A worker that dies while it has nothing to do is a crash of the next cell, not of the whole run."""
    options = Options(device="cpu", out=str(tmp_path), lpips="st-alex", clip="pocket", pairs=1, time_s=1.0)
    worker = Worker(options, tmp_path / "log", 60.0)
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    cell = config.load(config.embedded_path()).cells()[0]
    with pytest.raises(Crash, match="the worker was ended by SIGKILL"):
        worker.produce(cell, (), lambda _event: None)
    worker.close()
    worker.close()


def test_a_worker_that_cannot_tell(tmp_path: Path) -> None:
    """A worker that is asked about a cell which it has not run says so, as often as it is asked, and lives on."""
    options = Options(device="cpu", out=str(tmp_path), lpips="st-alex", clip="pocket", pairs=1, time_s=1.0)
    worker = Worker(options, tmp_path / "log", 120.0)
    cell = config.load(config.embedded_path()).cells()[1]
    for _ in range(2):
        with pytest.raises(Unavailable, match="can be blamed on something only in the process that has just run it"):
            worker.find_blame(cell, (0,), lambda _event: None)
    worker.close()


def test_interrupt_leaves_a_valid_run_and_no_process(run_qregress: Runner) -> None:
    """Ctrl-C in the middle: exit code 2, run.json valid and marked incomplete, the worker gone."""
    process = run_qregress.start(INT8, variables={TOKEN: run_qregress.folder.name})
    wait_for(lambda: run_qregress.folder.joinpath("out/cells/pixart-sigma/reference/bs1/result.json").exists(), process)
    assert workers(run_qregress.folder.name) != []
    process.send_signal(signal.SIGINT)
    finished = run_qregress.finish(process)
    assert finished.code == 2, finished.output
    assert [cell.setting for cell in finished.run.cells] == ["reference"]
    assert finished.run.complete is False
    assert workers(run_qregress.folder.name) == []


def test_a_killed_run_takes_its_worker_along(run_qregress: Runner) -> None:
    """A worker ends when its session is gone, however it went."""
    process = run_qregress.start(INT8, variables={TOKEN: run_qregress.folder.name}, **FEW)
    wait_for(lambda: workers(run_qregress.folder.name) != [], process)
    process.kill()
    process.communicate()
    wait_for(lambda: workers(run_qregress.folder.name) == [], None)
    assert workers(run_qregress.folder.name) == []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    """Poll a condition; fail where the process ends or five minutes pass before it holds."""
    end = time.monotonic() + 300
    pause = threading.Event()
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        pause.wait(0.05)


def workers(token: str) -> list[int]:
    """Process ids of workers that carry a token in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if b"qregress.produce.worker" in command and f"{TOKEN}={token}".encode() in variables:
            found.append(int(folder.name))
    return found

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.regression.harness import Overlay, Runner

FLOAT8 = '[settings.float8]\nweights = { transformer = "float8" }\n'
INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'
QUANTIZE = "    if include is not None:\n        include = [include]"
TOKEN = "QREGRESS_TEST_RUN"


def damaged(action: str) -> str:
    """Lines that do something when float8 is asked for."""
    return f'    if str(weights).endswith("qfloat8_e4m3fn"):\n        {action}\n{QUANTIZE}'


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("raise MemoryError('tried to allocate 80 GiB')", "MemoryError: tried to allocate 80 GiB"),
        ("import os; print('last words', flush=True); os._exit(3)", "ended with exit code 3"),
    ],
    ids=["segfault", "out-of-memory", "exit"],
)
def test_a_crash_ends_one_cell(run_qregress: Runner, overlay: Overlay, action: str, said: str) -> None:
    """The cell that crashes says how; the next one is judged all the same, by a new worker."""
    path = overlay.replace("optimum.quanto", "quantize.py", QUANTIZE, damaged(action))
    finished = run_qregress(FLOAT8 + INT8, overlay=path)
    verdicts = {cell.setting: cell.verdict for cell in finished.run.cells}
    assert finished.code == 1, finished.output
    assert verdicts == {"reference": "pass", "float8": "crashed", "int8": "pass"}, finished.output
    assert said in finished.output
    assert "last words" in finished.output or "last words" not in action


def test_a_hang_is_killed_at_its_deadline(run_qregress: Runner, overlay: Overlay) -> None:
    """A cell that does not end is killed, and where it hung is said."""
    forever = damaged("import threading; threading.Event().wait()")
    path = overlay.replace("optimum.quanto", "quantize.py", QUANTIZE, forever)
    finished = run_qregress(FLOAT8, overlay=path, deadline="60 s")
    assert finished.code == 1, finished.output
    assert "no end after 60 s ([run] deadline), killed; it was at: prepare 0/1" in finished.output


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
    process = run_qregress.start(INT8, variables={TOKEN: run_qregress.folder.name})
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

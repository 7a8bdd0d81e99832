"""Two runs on one machine: the second waits for the device, says so, and until then touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from qregress.device_lock import device_lock
from tests.plugin.project import Project


def test_a_run_waits_for_the_device(project: Project) -> None:
    """Given a device that is taken, when a run comes to its first cell, then it waits, and goes on when it is free."""
    project.run("-k", "reference").assert_outcomes(passed=1, deselected=2)
    produced = project.produced()
    run_json = project.path / ".qregress" / "latest" / "run.json"
    before = run_json.read_bytes()
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_DISABLE_PLUGIN_AUTOLOAD"}
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist"]
    with device_lock("cpu", lambda: None):
        process = subprocess.Popen(command, cwd=project.path, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = next(line for line in process.stdout if "waiting" in line or "passed" in line)
        assert line == "qregress: waiting for cpu: another run is measuring there\n"
        assert project.produced() == produced
        assert run_json.read_bytes() == before
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(project.results().cells) == 3

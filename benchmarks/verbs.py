"""How long the verbs that read finished runs take: 60 cells, 8 prompts each, images of 128 px, 4 references.

Each verb is a process of its own, beside a bare one (``python -c pass``) and a loop of fixed length of the same round,
so that a slow machine shows as one. Wall and CPU seconds; the best of the rounds, as noise only ever adds. ``--json``
for a machine to read.

    python benchmarks/verbs.py [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.store_making import write_matrix, write_matrix_run  # noqa: E402 - of this checkout

SETTINGS, WORKLOADS, PROMPTS, SIZE = 14, 4, 8, 128
BARE = "bare"
LOOP = "loop"
VERBS: dict[str, Sequence[str]] = {
    BARE: ("-c", "pass"),
    LOOP: ("-c", "sum(sorted((n, -n))[0] for n in range(1_500_000))"),
    "judge": ("-m", "qregress", "judge", "second"),
    "accept": ("-m", "qregress", "accept", "second", "--reason=benchmark"),
    "compare": ("-m", "qregress", "compare", "first", "second"),
    "orphans": ("-m", "qregress", "orphans"),
}


def prepare(project: Path) -> None:
    """A configuration, two runs whose every figure differs, and the first of them accepted."""
    write_matrix(project, SETTINGS, WORKLOADS)
    for name, step in (("first", 0), ("second", 1)):
        write_matrix_run(project / name, SETTINGS, WORKLOADS, step=step, prompts=PROMPTS, size=SIZE)
    measured(("-m", "qregress", "accept", "first", "--reason=first"), project)
    shutil.copytree(project / "baselines", project / "kept")


def measured(arguments: Sequence[str], project: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = os.times()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - start
    after = os.times()
    if done.returncode not in {0, 1}:  # 1: a check failed, or a cell was refused
        raise RuntimeError(f"{arguments}: {done.stderr}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent


def bench(rounds: int) -> dict[str, tuple[float, float]]:
    """Of each verb the best wall and the best CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        prepare(project)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in VERBS}
        for _ in range(rounds):
            for name, arguments in VERBS.items():
                shutil.rmtree(project / "baselines")
                shutil.copytree(project / "kept", project / "baselines")
                taken[name].append(measured(arguments, project))
    return {name: (min(wall for wall, _ in found), min(spent for _, spent in found)) for name, found in taken.items()}


def main() -> None:
    """Print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each verb (default: 3)")
    parser.add_argument("--json", action="store_true", help="seconds as JSON")
    options = parser.parse_args()
    found = bench(options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{(SETTINGS + 1) * WORKLOADS} cells, {PROMPTS} prompts, {SIZE} px, {WORKLOADS} references; seconds")
    print(f"{'verb':10}{'wall':>8}{'CPU':>8}{'wall - bare':>14}")
    for name, (wall, spent) in found.items():
        print(f"{name:10}{wall:8.3f}{spent:8.3f}{wall - found[BARE][0]:14.3f}")


if __name__ == "__main__":
    main()

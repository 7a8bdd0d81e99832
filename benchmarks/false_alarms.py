"""Clean runs against an accepted baseline: how often is anything but green said of a machine on which nothing changed?

``python benchmarks/false_alarms.py [--runs 20] [--log docs/false-alarms.md]``: one run is accepted, the others are
held against it. Any failed check is a false alarm. Runs are whole processes, as in CI. Every fourth run has one core
only, so that images differ in their last bits; on a machine on which nothing changes they would all be equal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from qregress.record import CellResult, Run, read

CONFIG = """
[pipelines.pixart-sigma]
source = "pocket:pixart-sigma"
[settings.int8]
weights = { transformer = "int8" }
[settings."float8+te"]
weights = { transformer = "float8", text_encoder = "float8" }
[settings.int4]
weights = { transformer = "int4" }
dtype = "bfloat16"
[workloads.bs1]
count = 4
steps = 20
"""


ONE_CORE_EVERY = 4


def qregress(folder: Path, *arguments: str, cores: set[int] | None = None) -> int:
    """One command in a process of its own, on some cores only; returns its exit code."""
    pinned = f"import os; os.sched_setaffinity(0, {cores}); " if cores else ""
    command = [sys.executable, "-c", f"{pinned}import sys; from qregress.cli import main; sys.exit(main())", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        sys.exit(f"{' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode


def main() -> None:
    """Run, accept, run again and again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    lines, alarms, cells = [], 0, 0
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "qregress.toml").write_text(CONFIG, encoding="utf-8")
        qregress(folder, "run")
        run_folder = folder / ".qregress" / "latest"
        if qregress(folder, "accept", str(run_folder), "--reason", "the first of many") != 0:
            sys.exit("the first run could not be accepted")
        first = read(run_folder / "run.json", Run)
        accepted = {
            cell.id: f"{cell.latency.ratio:.3f} ({cell.latency.ratio_low:.3f} to {cell.latency.ratio_high:.3f})"
            for cell in first.cells
            if cell.latency is not None and cell.latency.ratio is not None
        }
        for number in range(1, options.runs + 1):
            start, load = time.monotonic(), os.getloadavg()[0]
            cores = {min(os.sched_getaffinity(0))} if number % ONE_CORE_EVERY == 0 else None
            code = qregress(folder, "run", cores=cores)
            seconds = time.monotonic() - start
            run = read(run_folder / "run.json", Run)
            failed = [f"{cell.id} {c.name}" for cell in run.cells for c in cell.checks if c.verdict == "fail"]
            alarms += len(failed)
            cells += len(run.cells)
            for cell in run.cells:
                if cores is None and cell.latency is not None and cell.latency.ratio is not None:
                    ratios.setdefault(cell.id, []).append(cell.latency.ratio)
            which = f"{number} (one core)" if cores else f"{number}"
            seen = told(run.cells), ", ".join(failed) or "-", str(code)
            line = f"| {which} | {seconds:.0f} s | {load:.1f} | {' | '.join(seen)} |"
            lines.append(line)
            print(line, flush=True)
    fingerprint = first.fingerprint
    packages = ", ".join(f"{k} {v}" for k, v in fingerprint.packages.items()) if fingerprint is not None else "?"
    where = f"{fingerprint.device_name}, {fingerprint.threads} threads" if fingerprint is not None else "?"
    spread = [
        f"| {cell} | {accepted.get(cell, '-')} | {min(found):.3f} | {statistics.median(found):.3f} | {max(found):.3f} |"
        for cell, found in ratios.items()
    ]
    report = [
        "# False alarms",
        "",
        f"{options.runs} runs of four cells against one accepted run, with nothing changed in between:",
        f"**{alarms} false alarms in {cells} cells**.",
        "",
        f"`python benchmarks/false_alarms.py --runs {options.runs}` on {where}; {packages}.",
        "Load is the system's one-minute average when the run began: what else the machine was doing.",
        "",
        "| run | time | load | verdicts of checks | failed | exit code |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
        "Latency ratios of these runs (one core's are void: their ratios are not comparable), and what was accepted:",
        "",
        "| cell | accepted, with its interval | least | median | most |",
        "|---|---|---|---|---|",
        *spread,
    ]
    text = "\n".join(report) + "\n"
    print(text)
    if options.log is not None:
        options.log.write_text(text, encoding="utf-8")
    sys.exit(1 if alarms else 0)


def told(cells: tuple[CellResult, ...]) -> str:
    """Counts of all checks of a run, by verdict; what was not decided by name."""
    counts = Counter(check.verdict for cell in cells for check in cell.checks)
    undecided = Counter(check.name for cell in cells for check in cell.checks if check.verdict in {"void", "new"})
    names = "; ".join(f"{name} x {count}" for name, count in undecided.items())
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + (f" ({names})" if names else "")


if __name__ == "__main__":
    main()

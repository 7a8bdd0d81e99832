"""Runs against an accepted one on a machine on which nothing changed, or a denoiser got slower: what is said of them?

    python benchmarks/false_alarms.py --runs 20 --log docs/false-alarms.md
    python benchmarks/false_alarms.py --runs 10 --slower --config studies/slower.toml --device cuda --folder runs/slower

One run is accepted, the others are held against it: any failed check of a clean run is a false alarm. With ``--slower``
every other run has quantized denoisers of which a tenth of the blocks runs twice; it is told if a check of time fails.
Runs are whole processes, as in CI. On a CPU every fourth clean run has one core only, so that images differ in their
last bits; on a machine on which nothing changes they would all be equal. With ``--folder`` what was made stays there,
and is not made again; with ``--report`` as well nothing is made, and what is there is told.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from qregress.record import CellResult, Run, read  # noqa: E402 - of this checkout
from tests.regression.harness import FREEZE, Overlay  # noqa: E402

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
#: At the end of optimum-quanto's ``freeze``: device and host have a tenth more to do, and images stay what they are.
SLOWER = f"""{FREEZE}    blocks = list(getattr(model, "transformer_blocks", ()))
    for block in blocks[: round(len(blocks) / 10) or 1]:
        def twice(*args, once=block.forward, **kwargs):
            once(*args, **kwargs)
            return once(*args, **kwargs)
        block.forward = twice
"""
TIME = ("regression.latency", "regression.busy")
ONE_CORE_EVERY = 4
_SUFFIX = "-slower"  # in the names of runs


class Made(NamedTuple):
    """One run that is held against the accepted one."""

    name: str
    slower: bool
    one_core: bool
    seconds: float
    load: float
    code: int
    run: Run

    @property
    def failed(self) -> list[str]:
        """Cell and check of each that failed, and cells that did not run."""
        failed = [(cell.id, check.name) for cell in self.run.cells for check in cell.checks if check.verdict == "fail"]
        failed += [(cell.id, cell.verdict) for cell in self.run.cells if cell.latency is None]
        return [f"{cell} {what}" for cell, what in failed]


class Runs:
    """Makes runs in a folder."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self._device = device

    def accept_one(self) -> Run:
        """The run that the others are held against, made and accepted where there is none."""
        if not (self._folder / "baselines").exists():
            path = self._folder / "accepted"
            self._qregress("run", f"--out={path}")
            if self._qregress("accept", str(path), "--reason", "the first of many") != 0:
                sys.exit("the first run could not be accepted")
        return self.accepted()

    def accepted(self) -> Run:
        """The run that the others are held against."""
        return read(self._folder / "accepted" / "run.json", Run)

    def has(self, name: str) -> bool:
        """Whether a run has been made already."""
        return (self._folder / f"{name}.json").exists()

    def make(self, name: str, *, one_core: bool, slower: bool) -> Made:
        """One run against it, if it has not been made already."""
        if not self.has(name):
            start, load = time.monotonic(), os.getloadavg()[0]
            overlay = self._slower() if slower else None
            code = self._qregress("run", "--out=latest", cores=_one_core() if one_core else None, overlay=overlay)
            told = f"{time.monotonic() - start:.1f} {load:.1f} {code} {int(one_core)}"
            (self._folder / f"{name}.txt").write_text(told, encoding="utf-8")
            shutil.copy(self._folder / "latest" / "run.json", self._folder / f"{name}.json")
        return self.kept(name)

    def kept(self, name: str) -> Made:
        """One that has been made."""
        told = (self._folder / f"{name}.txt").read_text(encoding="utf-8")
        seconds, load, code, one_core = (*told.split(), "0")[:4]
        run = read(self._folder / f"{name}.json", Run)
        return Made(name, name.endswith(_SUFFIX), one_core == "1", float(seconds), float(load), int(code), run)

    def _slower(self) -> Path:
        """What makes a process' denoisers slower."""
        path = self._folder / "overlay"
        shutil.rmtree(path, ignore_errors=True)
        return Overlay(path).replace("optimum.quanto", "quantize.py", FREEZE, SLOWER)

    def _qregress(self, *arguments: str, cores: set[int] | None = None, overlay: Path | None = None) -> int:
        """One command in a process of its own, on some cores only; returns its exit code."""
        pinned = f"import os; os.sched_setaffinity(0, {cores}); " if cores else ""
        device = [f"--device={self._device}"] if arguments[0] == "run" else []
        start = f"{pinned}import sys; from qregress.cli import main; sys.exit(main())"
        paths = [str(path) for path in (overlay, ROOT, os.environ.get("PYTHONPATH")) if path]
        done = subprocess.run(
            [sys.executable, "-c", start, *arguments, *device],
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in {0, 1}:
            sys.exit(f"{' '.join(arguments)} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.returncode


def _one_core() -> set[int]:
    return {min(os.sched_getaffinity(0))}


def main() -> None:
    """Run, accept, run again and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="so many clean ones, and as many slower ones")
    parser.add_argument("--slower", action="store_true", help="a tenth of the blocks runs twice in every other run")
    parser.add_argument("--config", type=Path, help="a configuration (default: four cells of a pocket pipeline)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="keep what is made there, and go on with it")
    parser.add_argument("--report", action="store_true", help="of what is in --folder; makes nothing")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    if options.report and not (options.folder and (options.folder / "accepted" / "run.json").exists()):
        parser.error("--report needs a --folder with runs in it")
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        runs = Runs(folder, options.device)
        if options.report:
            first = runs.accepted()
            made = [runs.kept(name) for name, _, _ in _names(options) if runs.has(name)]
        else:
            text = options.config.read_text(encoding="utf-8") if options.config else CONFIG
            (folder / "qregress.toml").write_text(text, encoding="utf-8")
            first, made = runs.accept_one(), []
            for name, slower, one_core in _names(options):
                made.append(runs.make(name, one_core=one_core, slower=slower))
                print(_line(made[-1]), flush=True)
    report = "\n".join(_report(first, made, " ".join(sys.argv))) + "\n"
    print(report)
    if options.log is not None:
        options.log.write_text(report, encoding="utf-8")
    alarms = sum(len(one.failed) for one in made if not one.slower)
    missed = [one for one in made if one.slower and _missed(first, one)]
    sys.exit(1 if alarms or missed else 0)


def _names(options: argparse.Namespace) -> Iterator[tuple[str, bool, bool]]:
    """Each run, whether it is a slower one, and whether it has one core only."""
    for number in range(1, options.runs + 1):
        yield f"{number}", False, options.device == "cpu" and not options.slower and number % ONE_CORE_EVERY == 0
        if options.slower or options.report:
            yield f"{number}{_SUFFIX}", True, False


def _missed(first: Run, one: Made) -> list[str]:
    """Quantized cells of the accepted run of which no check of time failed in a slower one."""
    quantized = {cell.id for cell in first.cells if cell.latency is not None and cell.latency.ratio is not None}
    seen = {cell.id for cell in one.run.cells if any(c.verdict == "fail" for c in cell.checks if c.name in TIME)}
    return sorted(quantized - seen)


def _line(one: Made) -> str:
    which = one.name + (" (one core)" if one.one_core else "")
    seen = told(one.run.cells), ", ".join(one.failed) or "-", str(one.code)
    return f"| {which} | {one.seconds:.0f} s | {one.load:.1f} | {' | '.join(seen)} |"


def _report(first: Run, made: list[Made], command: str) -> Iterator[str]:
    clean, slower = ([one for one in made if one.slower == which] for which in (False, True))
    alarms, cells = sum(len(one.failed) for one in clean), sum(len(one.run.cells) for one in clean)
    yield "# False alarms\n"
    yield f"{len(clean)} runs of {len(first.cells)} cells against one accepted run, with nothing changed in between:"
    yield f"**{alarms} false alarms in {cells} cells**."
    if slower:
        missed = sum(bool(_missed(first, one)) for one in slower)
        yield f"\n{len(slower)} runs whose quantized denoisers ran a tenth of their blocks twice: **{missed} missed**."
    fingerprint = first.fingerprint
    packages = ", ".join(f"{k} {v}" for k, v in fingerprint.packages.items()) if fingerprint is not None else "?"
    where = f"{fingerprint.device_name}, {fingerprint.threads} threads" if fingerprint is not None else "?"
    yield f"\n`python {command}` on {where}; {packages}."
    yield "Load is the system's one-minute average when the run began: what else the machine was doing.\n"
    yield "| run | time | load | verdicts of checks | failed | exit code |\n|---|---|---|---|---|---|"
    yield from map(_line, made)
    void = " (one core's are void: their ratios are not comparable)" if any(one.one_core for one in made) else ""
    yield f"\nRatios to the reference of these runs{void}, and what was accepted, of wall time with its interval:\n"
    yield "| cell | runs | of | accepted | least | median | most |\n|---|---|---|---|---|---|---|"
    for cell in first.cells:
        for what, group in (("clean", clean), ("slower", slower)):
            yield from _ratios(cell, what, [one.run for one in group if not one.one_core])


def _ratios(accepted: CellResult, what: str, runs: list[Run]) -> Iterator[str]:
    found = [cell.latency for run in runs for cell in run.cells if cell.id == accepted.id and cell.latency is not None]
    was = accepted.latency
    if was is None or was.ratio is None or not found:
        return
    wall = [each.ratio for each in found if each.ratio is not None]
    interval = f"({was.ratio_low:.3f} to {was.ratio_high:.3f})"
    yield f"| {accepted.id} | {what} | wall | {was.ratio:.3f} {interval} {_spread(wall)}"
    busy = [each.busy_ratio for each in found if each.busy_ratio]
    if was.busy_ratio and busy:
        yield f"| {accepted.id} | {what} | busy | {was.busy_ratio:.3f} {_spread(busy)}"


def _spread(values: list[float]) -> str:
    return f"| {min(values):.3f} | {statistics.median(values):.3f} | {max(values):.3f} |"


def told(cells: tuple[CellResult, ...]) -> str:
    """Counts of all checks of a run, by verdict; what was not decided by name."""
    counts = Counter(check.verdict for cell in cells for check in cell.checks)
    undecided = Counter(check.name for cell in cells for check in cell.checks if check.verdict in {"void", "new"})
    names = "; ".join(f"{name} x {count}" for name, count in undecided.items())
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + (f" ({names})" if names else "")


if __name__ == "__main__":
    main()

"""What qregress costs beside the way it is done by hand: a script that starts a process for each cell.

    python benchmarks/by_hand.py --config studies/published.toml --device cuda -k pixart-sigma --folder runs/by-hand

Runs the same cells both ways, with the same number of timed calls: first `qregress run`, then for each cell a process
that loads, quantizes, generates once for memory and warmth, and times its calls. Of both it prints the wall time, what
of it went into loading, quantizing and calls, and what is left over: imports, proofs, scores, files. qregress
calls the reference beside every cell, warms both up, profiles some calls up to a few steps and looks at layers in one
more, all of which but the looking is in its calls; a script has its reference once, and one call more than it times.
qregress begins to copy the weights that it moves aside later to the host when it quantizes them: what that slows
quantizing down by is in the column ``quantize``.
With ``--folder`` what was made stays there, and is not made again; with ``--report`` as well nothing is made, and what
is there is told, even if processes are lacking.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from qregress import config
from qregress.matrix import Cell
from qregress.store.run import RunFolder

WORK = ("load", "quantize", "calls")
_SECONDS = "seconds.txt"  # in a folder: of the run of qregress, with its command


def main() -> None:
    """Run both ways and print them beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-k", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report and not (options.folder and (options.folder / _SECONDS).exists()):
        parser.error("--report tells what --folder has, and there is no run of qregress in it")
    loaded = config.load(options.config)
    if options.one:
        print(
            json.dumps(by_hand(msgspec.json.decode(options.one, type=Cell), options.device, loaded.run.latency_pairs))
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        mine, done = _qregress(options, folder)
        if not done:
            sys.exit(f"{folder / 'out'}: no cell ran to its end, so there is nothing to compare")
        cells = [cell for cell in loaded.cells() if cell.id in done]
        other, lacking = _processes(options, cells, folder / "processes.jsonl")
    print(f"{len(done)} cells, {loaded.run.latency_pairs} timed calls each\n")
    print("| | wall s | load | quantize | calls | rest |\n|---|---|---|---|---|---|")
    rests = []
    each = f"a process for {f'each of {len(cells) - len(lacking)} cells' if lacking else 'each cell'}"
    for name, found in (("qregress run", mine), (each, other)):
        rests.append(found["wall"] - sum(found[part] for part in WORK))
        print(
            f"| {name} | {found['wall']:.1f} | {' | '.join(f'{found[part]:.1f}' for part in WORK)} | {rests[-1]:.1f} |"
        )
    parts = {name: seconds for name, seconds in mine.items() if name not in {"wall", *WORK}}
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
    print(f"\nOf qregress' rest: {told}; imports and whatever else is in no cell {rests[0] - sum(parts.values()):.1f}.")
    wall = mine["wall"] / (mine["wall"] - rests[0])
    print(f"\nqregress takes {wall:.3f} x what it loads, quantizes and calls.")
    if lacking:
        print(f"No process was run for {', '.join(lacking)}: with it their rest is more.")
    print(f"Its rest is {'at most ' if lacking else ''}{rests[0] / rests[1]:.3f} of the processes'.")


def _command(options: argparse.Namespace, folder: Path) -> list[str]:
    """What is run of qregress."""
    command = [sys.executable, "-m", "qregress", "run", f"--config={options.config}", f"--out={folder / 'out'}"]
    return [*command, f"--device={options.device}", *(["-k", options.k] if options.k else [])]


def _qregress(options: argparse.Namespace, folder: Path) -> tuple[dict[str, float], set[str]]:
    """Seconds of a run and of the parts of its cells, and those cells."""
    command = _command(options, folder)
    kept, asked = folder / _SECONDS, " ".join(command)
    if kept.exists():
        seconds, _, made_by = kept.read_text(encoding="utf-8").partition("\n")
        if made_by != asked:
            sys.exit(f"{folder} is another run's: {made_by}")
    else:
        start = time.perf_counter()
        code = subprocess.run(command, check=False, stdout=sys.stderr).returncode
        if code not in {0, 1}:  # 1: a check failed
            sys.exit(f"{asked} ended with exit code {code}")
        seconds = str(time.perf_counter() - start)
        kept.write_text(f"{seconds}\n{asked}", encoding="utf-8")
    found = {"wall": float(seconds)} | dict.fromkeys(WORK, 0.0)
    cells = set()
    for path in (folder / "out" / "cells").glob("*/*/*/record.json"):
        cell = path.parent.relative_to(folder / "out" / "cells").as_posix()
        record = RunFolder(folder / "out").record(cell)
        if record is not None and record.spent:
            cells.add(cell)
            rest = record.seconds - sum(record.spent.values())
            for part, spent in (record.spent | {"other": rest}).items():
                found[part] = found.get(part, 0.0) + spent
    return found, cells


def _processes(options: argparse.Namespace, cells: list[Cell], kept: Path) -> tuple[dict[str, float], list[str]]:
    """Seconds of a process for each cell, one after the other, and the cells that have none."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    known = {line["cell"]: line for line in map(json.loads, lines)}
    for cell in cells:
        if cell.id in known or options.report:
            continue
        asked = msgspec.json.encode(cell).decode()
        command = [sys.executable, __file__, f"--config={options.config}", f"--device={options.device}", "--one", asked]
        start = time.perf_counter()
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        known[cell.id] = {"cell": cell.id, "wall": time.perf_counter() - start} | json.loads(told)
        print(known[cell.id], file=sys.stderr)
        with kept.open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(known[cell.id])}\n")
    run = [cell.id for cell in cells if cell.id in known]
    if not run:
        sys.exit(f"{kept}: no process was run, so there is nothing to compare")
    lacking = [cell.id for cell in cells if cell.id not in known]
    return {part: sum(known[name][part] for name in run) for part in ("wall", *WORK)}, lacking


def by_hand(cell: Cell, device: str, calls: int) -> dict[str, float]:
    """What such a script does, with the libraries alone; only loading goes through qregress, for ``random:``."""
    import torch
    from optimum.quanto import freeze, qfloat8, qint4, qint8, quantize

    from qregress import pipelines
    from qregress.produce.generate import call_arguments

    kinds = {"float8": qfloat8, "int8": qint8, "int4": qint4}
    torch.set_grad_enabled(False)

    def wait() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    start = wait()
    source = pipelines.find(cell.pipeline)
    pipeline = pipelines.load(source, cell.setting.dtype, device)
    loaded = wait()
    if cell.setting.fuse_qkv:
        pipeline.transformer.fuse_qkv_projections()
    for name, kind in cell.setting.weights.items():
        quantize(getattr(pipeline, name), weights=kinds[kind], exclude=list(cell.setting.exclude) or None)
        freeze(getattr(pipeline, name))
    quantized = wait()
    asked = call_arguments(msgspec.structs.replace(source, call=source.call | cell.pipeline.call), cell.workload)
    prompts = list(cell.workload.prompts[: cell.workload.batch_size])
    for _ in range(1 + calls):
        pipeline(
            prompt=prompts,
            generator=[torch.Generator().manual_seed(index) for index in range(len(prompts))],
            output_type="pt",
            **asked,
        )
        wait()
    return {"load": loaded - start, "quantize": quantized - loaded, "calls": wait() - quantized}


if __name__ == "__main__":
    main()

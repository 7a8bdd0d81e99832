"""What coverage and kernel fidelity cost, as a part of the time of a cell.

    python benchmarks/proof.py
    python benchmarks/proof.py --cells 'sd3/int8/bs1' 'pixart-sigma/int4/bs1'

Runs cells of the embedded matrix in this process, as a worker runs them, the noise floor left out, and prints for each
how many of its seconds went into proving that its setting happened.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from typing import Any

from qregress import config
from qregress.matrix import REFERENCE, Cell, Setting
from qregress.produce import bench
from qregress.produce.protocol import Options

_QUICK = ("pixart-sigma/float8+te/bs1", "pixart-sigma/int8/bs1", "pixart-sigma/int4/bs1")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=_QUICK)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    matrix = config.load(config.embedded_path())
    seconds: list[float] = []
    healthy = bench.prove

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        found = healthy(*arguments)
        seconds.append(time.perf_counter() - start)
        return found

    bench.prove = timed  # type: ignore[attr-defined]
    cells = [cell for cell in matrix.cells() if cell.id in chosen.cells]
    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            device=chosen.device,
            out=folder,
            lpips=matrix.metrics.lpips,
            clip=matrix.metrics.clip,
            pairs=matrix.run.latency_pairs,
            time_s=matrix.run.latency_time_s,
        )
        for _, group in itertools.groupby(cells, key=lambda cell: cell.pipeline.name):
            runner: bench.Bench | None = None
            for cell in group:
                runner = runner or bench.Bench(cell.pipeline, options, lambda _: None)
                runner.run(Cell(pipeline=cell.pipeline, setting=Setting(name=REFERENCE), workload=cell.workload), ())
                start = time.perf_counter()
                runner.run(cell, ())
                whole = time.perf_counter() - start
                print(f"{cell.id}: {seconds[-1]:.2f} s of {whole:.1f} s, {seconds[-1] / whole:.1%}", flush=True)


if __name__ == "__main__":
    main()

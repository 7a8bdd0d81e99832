"""What a short training recovers at few bits: LPIPS of a quantized denoiser against FP16, before and after it.

The workload's prompts are the first builtin ones, prompt i with seed i, or as many from another on; training sees none
of them. Images are made as qregress makes a cell's: the reference in float16, quantized weights in bfloat16, the VAE in
float32 on a CPU.

    python benchmarks/qat.py [--pipeline pocket:pixart-sigma] [--weights int2 int4] [--first 8] [--seed 1] [--repeat]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import DiffusionPipeline
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from qregress import pipelines  # noqa: E402 - of this checkout
from qregress.matrix import Training, Workload  # noqa: E402
from qregress.metrics.lpips import Lpips, load_lpips  # noqa: E402
from qregress.pipelines.assemble import family_of, initial_latents, sample_size, video_length  # noqa: E402
from qregress.pipelines.folder import Folder  # noqa: E402
from qregress.produce.determinism import settle  # noqa: E402
from qregress.produce.generate import Generated, call_arguments, drawn_latents, generate, join  # noqa: E402
from qregress.produce.training import train  # noqa: E402
from qregress.produce.variant import assemble  # noqa: E402
from qregress.quantize import quanto  # noqa: E402
from qregress.quantize.base import Spec  # noqa: E402
from qregress.quantize.copies import copies  # noqa: E402
from qregress.record import Trained  # noqa: E402


def latents_of(pipeline: DiffusionPipeline, source: Folder, workload: Workload) -> torch.Tensor:
    """The initial noise of all prompts."""
    roles, given = family_of(pipeline), call_arguments(source, workload)
    count = len(workload.prompts)
    if roles.inferred:
        return torch.cat([drawn_latents(pipeline, source, workload, index) for index in range(count)])
    height, width = (given.get(side) or sample_size(pipeline, roles) for side in ("height", "width"))
    frames = video_length(pipeline, roles, given)
    seeds = range(workload.seed, workload.seed + count)
    return torch.cat([initial_latents(pipeline, roles, height, width, seed, frames) for seed in seeds])


class Measure:
    """Images of one workload against those of the unquantized pipeline in float16."""

    def __init__(self, source: Folder, workload: Workload, device: str, lpips: Lpips) -> None:
        self._source, self._workload, self._lpips = source, workload, lpips
        self.pipeline = pipelines.load(source, "bfloat16", device)
        self.component = family_of(self.pipeline).denoiser
        reference = pipelines.load(source, "float16", device)
        self._initial = latents_of(reference, source, workload)
        self._reference = self._generate(reference)

    def __call__(self, module: nn.Module) -> list[float]:
        """LPIPS of each prompt's image, of a video the mean over its frames, with another denoiser."""
        made = self._generate(assemble(self.pipeline, {self.component: module}))
        found = self._lpips.distance(made.images.float() / 255, self._reference.images.float() / 255)
        return [statistics.fmean(found[start : start + made.frames]) for start in range(0, len(found), made.frames)]

    def _generate(self, pipeline: DiffusionPipeline) -> Generated:
        batches = self._workload.batches()
        return join([generate(pipeline, self._source, self._workload, batch, self._initial) for batch in batches])


def told(values: list[float]) -> str:
    """A mean and what it is of."""
    return f"{statistics.fmean(values):.4f}  ({' '.join(f'{value:.3f}' for value in values)})"


def cpu_seconds() -> float:
    """Of this process, all its threads."""
    return sum(os.times()[:2])


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two quantized modules hold the same bits."""
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def measured(weights: str, measure: Measure, source: Folder, workload: Workload, options: Any) -> dict[str, Any]:
    """One weight type: LPIPS before and after training, printed and returned."""
    spec = Spec(weights=weights)
    missing = quanto.backend().prepare([weights], options.device, print)
    if missing is not None:
        sys.exit(missing)
    plain = copies(measure.pipeline, {measure.component: spec})[measure.component]
    quanto.apply(plain, spec)
    before = measure(plain)
    print(f"{weights} before: {told(before)}", flush=True)
    training = Training(
        steps=options.training_steps, prompts=options.training_prompts, seed=options.seed, rate=options.rate
    )

    def on_step(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{total} ", end="", file=sys.stderr, flush=True)

    def once() -> tuple[nn.Module, Trained]:
        made, done = train(measure.pipeline, source, workload, measure.component, spec, training, on_step)
        quanto.apply(made, spec)
        return made, done

    cpu, start = cpu_seconds(), time.perf_counter()
    module, trained = once()
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    after = measure(module)
    print(f"{weights} after:  {told(after)}")
    print(f"  {statistics.fmean(after) / statistics.fmean(before):.2f} of what it was; {trained}")
    print(f"  {seconds:.0f} s, of processors {cpu:.0f} s; load {os.getloadavg()[0]:.1f}", flush=True)
    if options.repeat:
        print(f"  twice the same: {equal(module, once()[0])}", flush=True)
    return {
        "weights": weights,
        "before": before,
        "after": after,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "trained": msgspec.to_builtins(trained),
    }


def main() -> None:
    """Measure each weight type."""
    default = Training()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="pocket:pixart-sigma", help="source of an unquantized pipeline")
    parser.add_argument("--weights", nargs="+", default=["int2", "int4"])
    parser.add_argument("--prompts", type=int, default=8, help="of the workload")
    parser.add_argument("--first", type=int, default=0, help="of the builtin prompts, and its seed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--training-steps", type=int, default=default.steps)
    parser.add_argument("--training-prompts", type=int, default=default.prompts)
    parser.add_argument("--seed", type=int, default=default.seed, help="of the training")
    parser.add_argument("--rate", type=float, help="Adam's highest, for all weight types")
    parser.add_argument("--repeat", action="store_true", help="train twice and compare the weights")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    settle()
    source = pipelines.check(options.pipeline)
    prompts = pipelines.builtin_prompts()[options.first :][: options.prompts]
    workload = Workload(name="w", prompts=prompts, seed=options.first, batch_size=options.prompts)
    measure = Measure(source, workload, options.device, load_lpips("st-alex"))
    found = [measured(weights, measure, source, workload, options) for weights in options.weights]
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

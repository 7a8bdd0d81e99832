"""Whether each text encoder of the pocket SD3 matters: LPIPS with one of them silent, beside that of int8 weights.

A setting that damages an encoder can be seen in the images only if the encoder moves them further than quantization
does. Silent is an encoder whose hidden states and pooled output are zero, or one whose parameters are. Images are made
as qregress makes a cell's: float16, the VAE in float32, the first builtin prompts, the same initial latents for all.

    python benchmarks/sd3_encoders.py [--prompts N] [--steps N] [--json]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from qregress import pipelines  # noqa: E402 - of this checkout
from qregress.matrix import Setting, Workload  # noqa: E402
from qregress.metrics.lpips import load_lpips  # noqa: E402
from qregress.pipelines.assemble import initial_latents  # noqa: E402
from qregress.produce.generate import generate, join  # noqa: E402
from qregress.produce.variant import assemble, quantized  # noqa: E402

INT8 = "int8"
#: An encoder matters where its silence moves images this many times further than int8 weights do.
BAR = 5.0


def _zeros(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    return tuple(map(_zeros, value)) if isinstance(value, tuple) else value


def _silence(_module: nn.Module, _arguments: Any, output: Any) -> Any:
    """A forward hook: everything that an encoder returns, with zeros in it."""
    return type(output)(**{name: _zeros(value) for name, value in output.items()})


@contextmanager
def silent(encoder: nn.Module) -> Iterator[None]:
    """While it lasts, an encoder returns zeros."""
    hook = encoder.register_forward_hook(_silence)
    try:
        yield
    finally:
        hook.remove()


def without_parameters(encoder: nn.Module) -> nn.Module:
    """A copy whose parameters are zero."""
    found = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
    return found


@torch.no_grad()
def measure(prompts: int, steps: int, *, parameters: bool = True) -> dict[str, list[float]]:
    """LPIPS (``st-alex``) to the reference's images, prompt by prompt, of int8 and with each encoder silent.

    ``parameters``: also with each encoder's parameters at zero.
    """
    source = pipelines.check("pocket:sd3")
    pristine = pipelines.load(source, "float16", "cpu")
    workload = Workload(name="bs1", prompts=pipelines.builtin_prompts()[:prompts], seed=0, batch_size=1, steps=steps)
    height, width = (source.call[side] for side in ("height", "width"))
    latents = torch.cat(
        [initial_latents(pristine, source.family, height, width, workload.seed + at) for at in range(prompts)]
    )

    def images(changed: dict[str, nn.Module]) -> torch.Tensor:
        pipeline = assemble(pristine, changed)
        made = join([generate(pipeline, source, workload, batch, latents) for batch in workload.batches()])
        return made.images.float() / 255

    reference = images({})
    distance = load_lpips("st-alex").distance
    setting = Setting(name=INT8, weights={source.family.denoiser: INT8})
    found = {INT8: distance(images(quantized(pristine, setting)), reference)}
    for name in source.family.text_encoders:
        encoder = getattr(pristine, name)
        with silent(encoder):
            found[f"{name} silent"] = distance(images({}), reference)
        if parameters:
            found[f"{name} at zero"] = distance(images({name: without_parameters(encoder)}), reference)
    return found


def main() -> int:
    """Print a table or JSON; returns 1 where an encoder is below the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=8, help="of the builtin ones (default: 8)")
    parser.add_argument("--steps", type=int, default=8, help="default: 8, the pipeline's own")
    parser.add_argument("--json", action="store_true", help="LPIPS of every prompt as JSON")
    options = parser.parse_args()
    found = measure(options.prompts, options.steps)
    base = statistics.fmean(found[INT8])
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"pocket:sd3, float16, {options.prompts} prompts, {options.steps} steps; LPIPS (st-alex) to the reference"
        )
        print(f"{'':24}{'mean':>9}{'least':>9}{'most':>9}{'x int8':>9}")
        for name, values in found.items():
            mean = statistics.fmean(values)
            print(f"{name:24}{mean:9.4f}{min(values):9.4f}{max(values):9.4f}{mean / base:9.1f}")
    return 0 if all(statistics.fmean(found[name]) >= BAR * base for name in found if name != INT8) else 1


if __name__ == "__main__":
    sys.exit(main())

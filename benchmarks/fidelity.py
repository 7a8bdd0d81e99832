"""How near sound kernels come to what rounding allows: layers of the study's sizes, and whole pocket pipelines.

    python benchmarks/fidelity.py --device cuda --backends quanto torchao --pipelines pixart-sigma aura-flow

Prints, for each backend, weight type and dtype, the largest relative error, the largest share of the allowance, and
what is beyond it with its structure. A kernel that ends the process takes the rest with it: choose with the options.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from qregress import pipelines
from qregress.errors import QregressError, typed_line
from qregress.matrix import Pipeline, Setting, Workload
from qregress.pipelines.assemble import family_of, initial_latents, sample_size, video_length
from qregress.produce.generate import generate
from qregress.produce.proof import prove
from qregress.produce.variant import assemble, plans, quantized
from qregress.quantize import BACKENDS, fidelity, load_backend
from qregress.quantize.base import Spec
from qregress.record import LayerFidelity

#: Inputs, outputs, tokens: of PixArt-Sigma, SD3, AuraFlow and T5-XXL, and some that kernels have no tiles for.
SIZES = (
    (1152, 4608, 512),
    (4608, 1152, 512),
    (1152, 32, 512),
    (4096, 1152, 300),
    (10240, 4096, 64),
    (3072, 8192, 128),
    (1536, 9216, 2),
    (256, 1152, 2),
    (128, 128, 64),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backends", nargs="+", default=["quanto"], choices=sorted(BACKENDS))
    parser.add_argument("--pipelines", nargs="*", default=[])
    parser.add_argument("--weights", nargs="*", help="default: all of each backend")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16", "float32"])
    parser.add_argument("--largest", type=int, default=0, help="no layer with more inputs than that; 0: all")
    chosen = parser.parse_args()
    sizes = [size for size in SIZES if not chosen.largest or size[0] <= chosen.largest]
    kinds = {name: chosen.weights or BACKENDS[name].weights for name in chosen.backends}
    for backend, dtype in itertools.product(chosen.backends, chosen.dtypes):
        for weights in kinds[backend]:
            told(
                f"{backend} {weights} {dtype}",
                lambda b=backend, w=weights, d=dtype: layers(b, w, d, sizes, chosen.device),
            )
    for name, backend in itertools.product(chosen.pipelines, chosen.backends):
        for dtype, weights in itertools.product(chosen.dtypes, kinds[backend]):
            what = f"{name} {backend} {weights} {dtype}"
            told(what, lambda n=name, b=backend, w=weights, d=dtype: pocket(n, b, w, d, chosen.device))


def told(what: str, measure: Any) -> None:
    """One line for what was measured, or why it could not be."""
    try:
        found: list[LayerFidelity] = measure()
    except (QregressError, RuntimeError, NotImplementedError, ValueError, AssertionError) as error:
        print(f"{what}: {typed_line(error, 160)}")
        return
    if not found:
        return
    worst = max(math.inf if layer.excess is None else layer.excess for layer in found)
    error = max(math.inf if layer.error is None else layer.error for layer in found)
    classes = ", ".join(sorted({layer.tensor for layer in found}))
    print(f"{what}: {len(found)} layers, error {error:.1e}, {worst:.2f} of what is allowed ({classes})", flush=True)
    beyond = Counter((layer.tensor, layer.where, layer.kind) for layer in found if layer.where)
    for key, count in beyond.most_common(6):
        example = max(
            (each for each in found if (each.tensor, each.where, each.kind) == key), key=lambda e: e.excess or 0
        )
        at = f"{example.inputs}x{example.outputs}, error {example.error:.1e}, {example.excess:.2f} times"
        print(f"    {count} beyond: {', '.join(key)}; as {example.name}, {at}", flush=True)


def layers(
    backend: str, weights: str, dtype: str, sizes: list[tuple[int, int, int]], device: str
) -> list[LayerFidelity]:
    """Single layers with random weights and a bias."""
    library, compute = load_backend(backend), getattr(torch, dtype)
    lacks = library.prepare([weights], device, print)
    if lacks is not None:
        raise QregressError(lacks)
    found = []
    for inputs, outputs, tokens in sizes:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs, outputs)).to(device, compute)
        model.dtype = compute
        holder = SimpleNamespace(components={"model": model}, device=torch.device(device))
        made = library.quantize(holder, {"model": Spec(weights=weights)})["model"]  # type: ignore[arg-type]
        x = nn.functional.silu(2 * torch.randn(tokens, inputs)).to(device, compute)
        examined = fidelity.examine({"model": made}, {"model": model}, library, lambda _, m=made, x=x: m(x))
        found += examined["model"].layers
    return found


def pocket(name: str, backend: str, weights: str, dtype: str, device: str) -> list[LayerFidelity]:
    """All layers of a pocket pipeline's denoiser and text encoders, over one step."""
    source = pipelines.find(Pipeline(name=name, source=f"pocket:{name}", devices=("cpu",)))
    pristine = pipelines.load(source, dtype, device)
    roles = family_of(pristine)
    setting = Setting(name="s", backend=backend, weights={"denoiser": weights, "text_encoders": weights}, dtype=dtype)
    fitted = setting.of(roles)
    workload = Workload(name="w", prompts=pipelines.builtin_prompts()[:1])
    size = sample_size(pristine, roles)
    height, width = (source.call.get(side) or size for side in ("height", "width"))
    latents = initial_latents(pristine, roles, height, width, 0, video_length(pristine, roles, source.call))
    pipeline = assemble(pristine, quantized(pristine, fitted))
    proof = prove(
        pipeline,
        pristine,
        fitted,
        plans(pristine, fitted),
        (),
        lambda on_step: generate(pipeline, source, workload, range(1), latents, on_step),
    )
    return [layer for each in proof.fidelity.values() for layer in each]


if __name__ == "__main__":
    main()

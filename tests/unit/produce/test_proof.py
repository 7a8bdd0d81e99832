"""How far a call is taken until every layer has been compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from qregress import pipelines
from qregress.matrix import Setting, Workload
from qregress.produce.generate import generate
from qregress.produce.proof import Proof, prove
from qregress.produce.variant import assemble, plans, quantized

SOURCE = pipelines.check("pocket:pixart-sigma")
WORKLOAD = Workload(name="w", prompts=pipelines.builtin_prompts()[:1], steps=3)


@pytest.fixture(scope="module")
def pristine() -> DiffusionPipeline:
    """The pocket pipeline."""
    return pipelines.load(SOURCE, "float16", "cpu")


def proven(pristine: DiffusionPipeline, component: str, **fields: Any) -> tuple[Proof, int]:
    """A setting of int8 weights of one component; and how many steps were begun after the first, of three."""
    setting = Setting(name="s", weights={component: "int8"}, **fields)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pipeline = assemble(pristine, quantized(pristine, setting))
    steps: list[int] = []

    def run(on_step: Any) -> None:
        def told(step: int) -> None:
            on_step(step)
            steps.append(step)

        generate(pipeline, SOURCE, WORKLOAD, range(1), latents, told)

    return prove(pipeline, pristine, setting, plans(pristine, setting), (), run), len(steps)


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_one_step_is_enough_where_it_calls_all(component: str, pristine: DiffusionPipeline) -> None:
    """Given components that the first step or what is before it calls, then the call ends with that step."""
    proof, more = proven(pristine, component)
    assert more == 0
    assert len(proof.fidelity[component]) > 0
    assert proof.coverage[component].idle == ()


def test_projections_that_were_joined_are_not_waited_for(pristine: DiffusionPipeline) -> None:
    """Given joined projections, whose parts no call uses, then the call ends with the first step all the same."""
    proof, more = proven(pristine, "transformer", fuse_qkv=True)
    assert more == 0
    coverage = proof.coverage["transformer"]
    assert set(coverage.idle) == {old for parts in (coverage.joined or {}).values() for old in parts}
    assert len(coverage.idle) == 8 * (3 + 2)


def test_what_decodes_latents_is_compared(pristine: DiffusionPipeline) -> None:
    """Given a quantized VAE, which is called after the last step, then its decoder is compared, and all of it."""
    proof, more = proven(pristine, "vae")
    assert more == WORKLOAD.steps
    layers = proof.fidelity["vae"]
    assert len(layers) > 20
    assert [layer.name for layer in layers if layer.where] == []
    assert all(name.startswith(("encoder.", "quant_conv")) for name in proof.coverage["vae"].idle)

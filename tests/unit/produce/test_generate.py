"""One pipeline call, on the pocket pipeline at two steps."""

from __future__ import annotations

import inspect

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline

from qregress import pipelines
from qregress.matrix import Setting, Workload
from qregress.pipelines.assemble import initial_latents
from qregress.pipelines.folder import Folder
from qregress.produce.generate import Generated, generate
from qregress.produce.variant import assemble, plans

WORKLOAD = Workload(name="w", prompts=("a large red circle at the top on a plain white background",) * 2, steps=2)


@pytest.fixture(scope="module")
def pristine() -> DiffusionPipeline:
    """The pocket pipeline in float32, which is fast on a CPU."""
    return pipelines.load("pocket:pixart-sigma", "float32", "cpu")


@pytest.fixture
def folder() -> Folder:
    """Its files."""
    return pipelines.check("pocket:pixart-sigma")


def make(pipeline: DiffusionPipeline, folder: Folder, seed: int = 0, batch: range = range(2)) -> Generated:
    """Two images of one prompt with different latents."""
    workload = Workload(name="w", prompts=WORKLOAD.prompts, steps=2, seed=seed)
    latents = torch.cat([initial_latents(pipeline, folder.family, 128, 128, n) for n in range(2)])
    return generate(pipeline, folder, workload, batch, latents)


def test_shapes_and_dtypes(pristine: DiffusionPipeline, folder: Folder) -> None:
    """Given two prompts and two steps, then images, latents and the way there have these shapes."""
    made = make(assemble(pristine, {}), folder)
    assert (made.images.shape, made.images.dtype) == ((2, 3, 128, 128), torch.uint8)
    assert (made.latents.shape, made.trajectory.shape) == ((2, 4, 16, 16), (2, 2, 4, 16, 16))
    assert torch.equal(made.trajectory[:, -1], made.latents.float())
    assert made.finite.tolist() == [True, True]


def test_a_prompt_does_not_depend_on_its_batch(pristine: DiffusionPipeline, folder: Folder) -> None:
    """Given a prompt alone and in a batch, then its image is the same to a rounding of the last bit."""
    pipeline = assemble(pristine, {})
    together, alone = make(pipeline, folder), make(pipeline, folder, batch=range(1, 2))
    assert (together.images[1].int() - alone.images[0].int()).abs().max() <= 1


def test_a_stochastic_scheduler_is_seeded(pristine: DiffusionPipeline, folder: Folder) -> None:
    """Given a scheduler that draws noise, then the workload's seed decides, not what was drawn before."""
    pipeline = assemble(pristine, {})
    pipeline.scheduler = DDPMScheduler.from_config(
        pristine.scheduler.config, clip_sample=False, variance_type="fixed_small"
    )
    first = make(pipeline, folder)
    torch.rand(7)
    assert make(pipeline, folder).equals(first)
    assert not make(pipeline, folder, seed=5).equals(first)


def test_the_scheduler_is_left_as_it_was(pristine: DiffusionPipeline, folder: Folder) -> None:
    """Given a call, then the observer is gone after it, and had the scheduler's own signature."""
    pipeline = assemble(pristine, {})
    before = inspect.signature(pipeline.scheduler.step)
    make(pipeline, folder)
    assert "step" not in vars(pipeline.scheduler)
    assert inspect.signature(pipeline.scheduler.step) == before


@pytest.mark.parametrize(
    ("exclude", "unmatched"),
    [
        (("proj_out",), {"transformer": (), "text_encoder": ()}),
        (("nothing",), {"transformer": ("nothing",), "text_encoder": ()}),
    ],
)
def test_a_pattern_need_not_mean_every_component(
    pristine: DiffusionPipeline, exclude: tuple[str, ...], unmatched: dict[str, tuple[str, ...]]
) -> None:
    """Given an exclusion and two components, then it is unmatched only if neither has such a module."""
    setting = Setting(name="s", weights={"transformer": "int8", "text_encoder": "int8"}, exclude=exclude)
    planned = plans(pristine, setting)
    assert {name: planned[name].unmatched for name in unmatched} == unmatched

"""One pipeline call, on the pocket pipeline at two steps."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline

from qregress import pipelines
from qregress.errors import ProduceError
from qregress.matrix import Setting, Workload
from qregress.pipelines import pocket
from qregress.pipelines.assemble import initial_latents
from qregress.pipelines.families import FAMILIES
from qregress.pipelines.folder import Folder, Source
from qregress.produce.generate import Generated, call_arguments, drawn_latents, generate, join
from qregress.produce.variant import assemble, plans
from tests.video_making import make_latte

WORKLOAD = Workload(name="w", prompts=("a large red circle at the top on a plain white background",) * 2, steps=2)


@pytest.fixture(scope="module")
def pristine() -> DiffusionPipeline:
    """The pocket pipeline in float32, which is fast on a CPU."""
    return pipelines.load("pocket:pixart-sigma", "float32", "cpu")


@pytest.fixture
def folder() -> Folder:
    """Its files."""
    return pocket.find("pixart-sigma")


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


FRAMES = 3


@pytest.fixture(scope="module")
def latte() -> Any:
    """A Latte of one layer, which was made for videos of three frames, where the pipeline's default is sixteen."""
    return make_latte(frames=FRAMES, layers=1)


def make_videos(pipeline: Any, batch: range = range(2)) -> Generated:
    """Videos of two prompts."""
    latents = torch.cat([initial_latents(pipeline, FAMILIES["LattePipeline"], 64, 64, n, FRAMES) for n in range(2)])
    source = Source(call={"height": 64, "width": 64, "clean_caption": False, "mask_feature": False})
    return generate(pipeline, source, WORKLOAD, batch, latents)


def test_videos(latte: Any) -> None:
    """Given a pipeline of videos, then images are its frames, prompt by prompt, each decoded from its own latents."""
    made = make_videos(latte)
    assert (made.frames, made.images.shape, made.images.dtype) == (FRAMES, (2 * FRAMES, 3, 64, 64), torch.uint8)
    assert (made.latents.shape, made.trajectory.shape) == ((2, 4, FRAMES, 8, 8), (2, 2, 4, FRAMES, 8, 8))
    assert made.finite.tolist() == [True] * 2 * FRAMES
    own = torch.stack([made.latents[prompt, :, frame] for prompt in range(2) for frame in range(FRAMES)])
    with torch.no_grad():
        decoded = latte.vae.decode(own / latte.vae.config.scaling_factor).sample
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (made.images.float() - expected).abs().max() <= 1
    assert len({image.numpy().tobytes() for image in made.images}) == 2 * FRAMES


def test_a_video_does_not_depend_on_its_batch(latte: Any) -> None:
    """Given a prompt alone and in a batch, then its frames are the same to a rounding of the last bit."""
    together, alone = make_videos(latte), make_videos(latte, range(1, 2))
    assert alone.images.shape[0] == FRAMES
    assert (together.rows([1]).images.int() - alone.images.int()).abs().max() <= 1


def videos(*prompts: int) -> Generated:
    """Videos of two frames, each frame of one level: ten times the prompt, and its place."""
    levels = [10 * prompt + frame for prompt in prompts for frame in range(2)]
    return Generated(
        images=torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone(),
        finite=torch.tensor([level != 11 for level in levels]),
        latents=torch.tensor(prompts, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(-1, 4, 2, 2, 2).clone(),
        trajectory=torch.zeros(len(prompts), 1, 4, 2, 2, 2),
        frames=2,
    )


def levels_of(made: Generated) -> list[int]:
    """Of all images."""
    return made.images[:, 0, 0, 0].tolist()


def test_rows_of_videos() -> None:
    """Given places of prompts, then their frames stay together and in order, and so does what is known of each."""
    found = videos(0, 1, 2).rows([2, 1])
    assert levels_of(found) == [20, 21, 10, 11]
    assert found.finite.tolist() == [True, True, True, False]
    assert found.latents[:, 0, 0, 0, 0].tolist() == [2.0, 1.0]
    assert found.videos[1, 1, 0, 0, 0] == 11


def test_videos_joined() -> None:
    """Given two calls, then joined they are one call's videos, and taken apart again the same."""
    found = join([videos(0), videos(1, 2)])
    assert found.equals(videos(0, 1, 2))
    assert found.rows([1, 2]).equals(videos(1, 2))


def test_videos_that_differ() -> None:
    """Given one frame in another place, or the same images as videos of another length, then they are not equal."""
    made = videos(0, 1)
    swapped = Generated(made.images[[1, 0, 2, 3]], made.finite, made.latents, made.trajectory, 2)
    longer = Generated(made.images, made.finite, made.latents, made.trajectory, 4)
    assert not made.equals(swapped)
    assert not made.equals(longer)
    assert made.equals(videos(0, 1))


def test_drawn_latents_are_what_the_pipeline_draws(pristine: DiffusionPipeline, folder: Folder) -> None:
    """Given the noise that a pipeline drew for a seed, then giving it back makes the image of that seed."""
    pipeline = assemble(pristine, {})
    workload = Workload(name="w", prompts=WORKLOAD.prompts, steps=2, seed=5)
    drawn = torch.cat([drawn_latents(pipeline, folder, workload, index) for index in range(2)])
    made = generate(pipeline, folder, workload, [1], drawn)
    seeded = pipeline(
        prompt=WORKLOAD.prompts[1],
        generator=torch.Generator().manual_seed(6),
        output_type="pt",
        **call_arguments(folder, workload),
    )[0]
    assert torch.equal(made.images[0], (seeded[0] * 255).round().to(torch.uint8))
    assert "step" not in vars(pipeline.scheduler)


def test_drawn_latents_of_a_pipeline_that_scales_them(pristine: DiffusionPipeline, folder: Folder) -> None:
    """Given a class that multiplies what it is given, then the factor is taken out; one that does more is refused."""
    pipeline = assemble(pristine, {})
    plain = drawn_latents(pipeline, folder, WORKLOAD, 0)
    prepare = pipeline.prepare_latents

    def scaled(*arguments: Any, **options: Any) -> torch.Tensor:
        latents: torch.Tensor = 3.0 * prepare(*arguments, **options)
        return latents

    pipeline.prepare_latents = scaled
    assert torch.allclose(drawn_latents(pipeline, folder, WORKLOAD, 0), plain, rtol=1e-4, atol=1e-4)
    pipeline.prepare_latents = lambda *arguments, **options: prepare(*arguments, **options) + 1.0
    with pytest.raises(ProduceError, match="changes latents that it is given"):
        drawn_latents(pipeline, folder, WORKLOAD, 0)

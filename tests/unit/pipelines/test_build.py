"""Architectures built: full-size shapes without memory, and small ones that run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from diffusers import DiffusionPipeline

from qregress import pipelines
from qregress.errors import SourceError
from qregress.matrix import Workload
from qregress.metrics.weights import digest_tensors
from qregress.pipelines import architecture, pocket
from qregress.pipelines.architecture import Architecture, Part
from qregress.pipelines.assemble import initial_latents, video_length
from qregress.pipelines.build import build, fill, skeleton
from qregress.pipelines.folder import read_json
from qregress.produce.generate import generate
from tests.architecture_making import SMALL, write_small

NAMES = architecture.names()
#: Billions of parameters: of the first three denoisers as the study gives them, of others as their libraries count.
DENOISERS = {
    "pixart-sigma": "0.611",
    "sd3": "2.028",
    "aura-flow": "6.843",
    "pixart-alpha": "0.611",
    "hunyuan-dit": "1.500",
    "lumina": "1.755",
    "latte": "1.057",
}
ENCODERS = {
    "pixart-sigma": ["4.762"],
    "pixart-alpha": ["4.762"],
    "latte": ["4.762"],
    "sd3": ["0.124", "0.695", "4.762"],
    "aura-flow": ["1.224"],
    "hunyuan-dit": ["0.352", "1.670"],
    "lumina": ["2.506"],
}
#: GiB that the study measured, allocated after a run.
STUDY = {"pixart-sigma": 12.086, "sd3": 16.403}


@pytest.fixture(scope="module", params=NAMES)
def full(request: pytest.FixtureRequest) -> tuple[str, DiffusionPipeline]:
    """A pipeline at full size in float16, shapes alone."""
    found = architecture.find(request.param)
    return request.param, build(found, torch.float16, torch.float16, "meta")


def billions(model: Any) -> str:
    """Of parameters, each counted once."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e9:.3f}"


def test_parameters(full: tuple[str, DiffusionPipeline]) -> None:
    """Given an architecture, then its denoiser and text encoders are as large as the published ones."""
    name, pipeline = full
    encoders = pipelines.check(f"random:{name}").family.text_encoders
    assert billions(pipeline.transformer) == DENOISERS[name]
    assert [billions(getattr(pipeline, encoder)) for encoder in encoders] == ENCODERS[name]
    assert billions(pipeline.vae) == "0.084"


@pytest.mark.parametrize("full", STUDY, indirect=True)
def test_bytes(full: tuple[str, DiffusionPipeline]) -> None:
    """Given what the study measured, then weights and tables are that but for what a run leaves, below 0.1 GiB."""
    name, pipeline = full
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    stored = sum(tensor.nbytes for part in parts for tensor in [*part.parameters(), *part.buffers()])
    assert 0 < STUDY[name] - stored / 2**30 < 0.1


def test_only_tables_are_real(full: tuple[str, DiffusionPipeline]) -> None:
    """Given shapes alone, then every weight is on meta: a host that builds for a device holds none of them."""
    _, pipeline = full
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {parameter.device.type for part in parts for parameter in part.parameters()} == {"meta"}


def test_tokens_fit(full: tuple[str, DiffusionPipeline]) -> None:
    """Given a small vocabulary, then its ids lie within the encoder's, which is full-size; CLIP ends where it ends."""
    name, pipeline = full
    for number, encoder in enumerate(pipelines.check(f"random:{name}").family.text_encoders, 1):
        tokenizer = getattr(pipeline, "tokenizer" if number == 1 else f"tokenizer_{number}")
        config = getattr(pipeline, encoder).config
        assert max(tokenizer.get_vocab().values()) < 1000 < config.vocab_size
        if "CLIP" in type(tokenizer).__name__:
            ends = config.bos_token_id, config.eos_token_id, config.pad_token_id
            assert ends == (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)


def small(name: str, folder: Path, seed: int = 0) -> Architecture:
    """An architecture of the package with other numbers."""
    return architecture.find(f"{write_small(name, folder / f'{name}.toml')}@{seed}")


@pytest.mark.parametrize("name", SMALL)
def test_a_small_one_generates(name: str, tmp_path: Path) -> None:
    """Given any family made small, in float16 on a CPU, then images and latents are finite, and T5's wo is float32."""
    found = small(name, tmp_path)
    pipeline = pipelines.load(found, "float16", "cpu")
    roles = found.family
    dtypes = {
        key.split(".")[-2]: tensor.dtype
        for encoder in roles.text_encoders
        for key, tensor in getattr(pipeline, encoder).named_parameters()
        if "DenseReluDense" in key
    }
    assert dtypes == ({"wi_0": torch.float16, "wi_1": torch.float16, "wo": torch.float32} if dtypes else {})
    assert bool(dtypes) is (name != "lumina")  # whose encoder is Gemma
    assert {tensor.dtype for tensor in pipeline.transformer.parameters()} == {torch.float16}
    workload = Workload(name="bs1", prompts=("a small red circle",))
    initial = initial_latents(pipeline, roles, 128, 128, 0, video_length(pipeline, roles, found.call))
    made = generate(pipeline, found, workload, range(1), initial)
    assert bool(made.finite.all())
    assert made.images.float().std() > 1
    # On CUDA the VAE computes in float16 too.
    half = build(found, torch.float16, torch.float16, "cpu").vae
    scaled = made.latents / half.config.scaling_factor
    frames = scaled.transpose(1, 2).flatten(0, 1) if scaled.ndim == 5 else scaled
    assert bool(half.decode(frames.half()).sample.isfinite().all())


def digest(pipeline: DiffusionPipeline) -> dict[str, str]:
    """Component -> digest of its weights."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {name: digest_tensors(part.state_dict()) for name, part in parts.items()}


def test_a_seed_decides_the_bytes(tmp_path: Path) -> None:
    """Given a seed twice, then the same bytes, whatever was drawn before; given another, then others in each part."""
    found = small("pixart-sigma", tmp_path)
    first = digest(pipelines.load(found, "float16", "cpu"))
    torch.randn(3)
    assert digest(pipelines.load(found, "float16", "cpu")) == first
    other = digest(pipelines.load(small("pixart-sigma", tmp_path, 1), "float16", "cpu"))
    assert not set(other.values()) & set(first.values())


def test_dtypes_have_the_same_weights(tmp_path: Path) -> None:
    """Given two dtypes, then weights are those of float32 rounded: a distance between the two is one of computing."""
    found = small("latte", tmp_path)
    exact, half, brain = (pipelines.load(found, name, "cpu").transformer for name in ("float32", "float16", "bfloat16"))
    for name, weight in exact.named_parameters():
        assert torch.equal(half.get_parameter(name), weight.half())
        assert torch.equal(brain.get_parameter(name), weight.bfloat16())


def test_a_large_weight_is_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a weight of several pieces, then none is a repetition, and together they have the scale of one."""
    monkeypatch.setattr("qregress.pipelines.build._CHUNK", 1000)
    model = torch.nn.Linear(100, 64, bias=False, device="meta")
    fill(model, torch.float32, 2.0, "seed", "cpu")
    assert float(model.weight.std()) == pytest.approx(0.2, rel=0.05)
    assert len(model.weight.unique()) > 6000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["sd3", "lumina", "latte"])
def test_dtypes_are_those_of_from_pretrained(name: str, dtype: str) -> None:
    """Given the configurations of a pocket pipeline, then every weight and table has the dtype that loading gives."""
    folder = pocket.find(name)
    pipeline = pipelines.load(folder, dtype, "cpu")
    for component in folder.components:
        loaded, compute = getattr(pipeline, component), getattr(torch, dtype)
        table = read_json(folder.shared.get(component, folder.path / component) / "config.json")
        beside = {"architectures", "dtype", "transformers_version", "model_type"}
        config = {key: value for key, value in table.items() if key not in beside and not key.startswith("_")}
        kind = torch.float32 if component == "vae" else compute
        made = skeleton(component, Part(kind=".".join(folder.kinds[component]), config=config), kind)
        fill(made, kind, 1.0, "", "cpu")
        assert layout(made) == layout(loaded)


def layout(model: torch.nn.Module) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Of each weight and table, where it is shared under each of its names."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors}


@pytest.mark.parametrize(
    ("component", "change", "says"),
    [
        ("vae", {"kind": "diffusers.AutoencoderKLX"}, "components.vae: diffusers 0."),
        (
            "transformer",
            {"config": {"num_layer": 2}},
            "transformer.config: PixArtTransformer2DModel has no 'num_layer'",
        ),
        (
            "text_encoder",
            {"config": {"d_modell": 2}},
            "text_encoder.config: T5EncoderModel has no 'd_modell'; did you m",
        ),
        ("scheduler", {"config": {"beta": 2}}, "scheduler.config: DPMSolverMultistepScheduler has no 'beta'; "),
    ],
)
def test_what_the_libraries_do_not_have(component: str, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    """Given a class or an entry that does not exist, then one line: libraries would ignore it, and build full size."""
    found = small("pixart-sigma", tmp_path)
    part = msgspec.structs.replace(found.parts[component], **change)
    with pytest.raises(SourceError) as caught:
        build(
            msgspec.structs.replace(found, parts=found.parts | {component: part}), torch.float16, torch.float16, "meta"
        )
    assert says in str(caught.value)


def test_a_part_that_a_pipeline_lacks(tmp_path: Path) -> None:
    """Given a pipeline without one of its components, then one line names its class and what is missing."""
    found = small("pixart-sigma", tmp_path)
    parts = {name: part for name, part in found.parts.items() if name != "tokenizer"}
    with pytest.raises(SourceError, match=r"PixArtSigmaPipeline: .*tokenizer"):
        build(msgspec.structs.replace(found, parts=parts), torch.float16, torch.float16, "meta")

"""Files to a ``DiffusionPipeline``, with the dtypes that the cells need."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
from diffusers.utils import deprecation_utils

from qregress.errors import LIBRARY_ERRORS, ConfigError, FactoryError, SourceError, nearest, typed_line
from qregress.pipelines.architecture import Architecture
from qregress.pipelines.build import build
from qregress.pipelines.factories import Made
from qregress.pipelines.families import Family, family, kind_of, known_base
from qregress.pipelines.folder import Folder, read_json

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

#: diffusers' own name for the argument: ``torch_dtype`` is deprecated where ``dtype`` exists, and goes in 1.0.
DTYPE = "dtype" if hasattr(deprecation_utils, "_resolve_dtype") else "torch_dtype"


def vae_dtype(dtype: torch.dtype, device: str) -> torch.dtype:
    """float32 on a CPU: half-precision convolutions are unusably slow there (12.7 s against 0.06 s for one decode)."""
    return torch.float32 if device == "cpu" else dtype


def _to_own_dtype(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A forward hook: the input in the dtype of the module's weights."""
    return (args[0].to(next(module.parameters()).dtype), *args[1:])


def accept_latents(vae: torch.nn.Module) -> None:
    """Let a VAE decode latents of another dtype than its own: only some pipelines convert them."""
    for name in ("post_quant_conv", "decoder"):
        part = getattr(vae, name, None)
        if part is not None:
            part.register_forward_pre_hook(_to_own_dtype)


def load_folder(folder: Folder, dtype: str, device: str) -> DiffusionPipeline:
    """Load a pipeline from local files only.

    ``dtype`` is a torch dtype's name. Modules that a library keeps in float32 (T5's ``wo`` under float16) stay so, as
    they do for users of ``from_pretrained``. Raises ``SourceError`` with one line where a library cannot load it.
    """
    compute = getattr(torch, dtype)
    roles = folder.family
    vae = roles.vae
    components: dict[str, Any] = {}
    try:
        for name, path in folder.shared.items():
            kind = vae_dtype(compute, device) if name == vae else compute
            model = shared_class(folder.path, name)
            components[name] = model.from_pretrained(str(path), local_files_only=True, **{DTYPE: kind})
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            str(folder.path),
            local_files_only=True,
            variant=folder.variant,
            **{DTYPE: {**({vae: vae_dtype(compute, device)} if vae else {}), "default": compute}},
            **components,
        )
    except LIBRARY_ERRORS as error:
        raise SourceError(f"{folder.path}: cannot be loaded: {typed_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    if vae is not None and vae_dtype(compute, device) != compute:
        accept_latents(getattr(pipeline, vae))
    for name in (roles.denoiser, *roles.text_encoders):
        check_plain(str(folder.path), name, getattr(pipeline, name), compute)
    return pipeline.to(device)


def load_architecture(architecture: Architecture, dtype: str, device: str) -> DiffusionPipeline:
    """Build a pipeline with random weights, on the device and in the dtypes that ``load_folder`` would load them in.

    Raises ``SourceError`` with one line where the libraries do not have what it is made of.
    """
    compute = getattr(torch, dtype)
    own = vae_dtype(compute, device)
    pipeline = build(architecture, compute, own, device)
    pipeline.set_progress_bar_config(disable=True)
    roles = architecture.family
    if roles.vae is not None and own != compute:
        accept_latents(getattr(pipeline, roles.vae))
    for name in (roles.denoiser, *roles.text_encoders):
        check_plain(architecture.origin, name, getattr(pipeline, name), compute)
    return pipeline


def family_of(pipeline: DiffusionPipeline) -> Family:
    """Roles of a loaded pipeline's components; a class of one's own has those of what it extends.

    Raises ``ConfigError`` where it has no denoiser.
    """
    parts = pipeline.components.items()
    kinds = {name: kind_of(type(part)) for name, part in parts if isinstance(part, torch.nn.Module)}
    return family(known_base(type(pipeline)), kinds)


def shared_class(path: Path, name: str) -> Any:
    """The class that ``model_index.json`` names for a component: transformers' own choice may be a larger model."""
    library, kind = read_json(path / "model_index.json")[name]
    return getattr({"diffusers": diffusers, "transformers": transformers}[library], kind)


def load_made(made: Made, dtype: str, device: str) -> DiffusionPipeline:
    """Call a registered factory and check what it returns, as for a folder.

    Its modules are put into evaluation mode, as ``from_pretrained`` does: dropout would make every call another one.
    Raises ``FactoryError`` with one line for whatever goes wrong in it, ``SourceError`` for quantized weights.
    """
    compute = getattr(torch, dtype)
    try:
        pipeline = made.function(compute, device)
    except Exception as error:
        raise FactoryError(f"{made.origin}: raised {typed_line(error)}") from error
    kind = type(pipeline).__name__
    if not isinstance(pipeline, diffusers.DiffusionPipeline):
        raise FactoryError(f"{made.origin}: returned {kind}; expected an unquantized DiffusionPipeline")
    try:
        roles, parts = family_of(pipeline), pipeline.components
    except ConfigError as error:
        raise FactoryError(f"{made.origin}: {error}") from None
    except (ValueError, AttributeError) as error:
        told = f"{made.origin}: {kind} is no class as diffusers wants it"
        raise FactoryError(f"{told}: arguments that are no components need a default") from error
    modules = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    for name in made.components or ():
        if name not in modules:
            raise FactoryError(f"{made.origin}: returned no component '{name}'; {nearest(name, modules)}")
    for name, module in modules.items():
        role = name in (roles.denoiser, *roles.text_encoders)
        check_plain(made.origin, name, module, compute if role else None, "the factory was to use its argument")
        module.eval()
    vae = modules.get(roles.vae)
    if vae is not None and next(vae.parameters()).dtype != compute:
        accept_latents(vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def check_plain(
    origin: str,
    name: str,
    module: torch.nn.Module,
    compute: torch.dtype | None,
    blame: str = "diffusers ignored the dtype",
) -> None:
    """Raise ``SourceError`` for quantized weights and another dtype: such a reference makes every cell look good.

    ``compute``: the dtype that most of its weights must have, or ``None`` for any.
    """
    elements: Counter[torch.dtype] = Counter()
    for parameter in module.parameters():
        if type(parameter.data) is not torch.Tensor:
            kind = type(parameter.data).__name__
            raise SourceError(f"{origin}: {name} is quantized already ({kind}); name an unquantized pipeline")
        elements[parameter.dtype] += parameter.numel()
    found = elements.most_common(1)[0][0] if elements else compute
    if compute not in (None, found):
        raise SourceError(f"{origin}: {name} was loaded as {found}, not as {compute}; {blame}")


def sample_size(pipeline: DiffusionPipeline, roles: Family) -> int:
    """Height and width, in pixels, that the denoiser was made for."""
    size: int = getattr(pipeline, roles.denoiser).config.sample_size
    return size * int(pipeline.vae_scale_factor)


def video_length(pipeline: DiffusionPipeline, roles: Family, call: dict[str, Any]) -> int | None:
    """Frames that a call asks for, else those that the denoiser was made for; ``None`` where a family makes images."""
    if roles.frames is None:
        return None
    return int(call.get(roles.frames) or getattr(pipeline, roles.denoiser).config[roles.frames])


def initial_latents(
    pipeline: DiffusionPipeline, roles: Family, height: int, width: int, seed: int, frames: int | None = None
) -> torch.Tensor:
    """Standard normal noise, float32 on the CPU, ``[1, channels, height / factor, width / factor]``.

    Of a video ``[1, channels, frames, height / factor, width / factor]``. Drawn once for the reference and then read
    from disk: random streams have changed between torch releases.
    """
    denoiser = getattr(pipeline, roles.denoiser)
    factor = pipeline.vae_scale_factor
    length = () if frames is None else (frames,)
    shape = (1, denoiser.config.in_channels, *length, height // factor, width // factor)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def check_apart(made: DiffusionPipeline, other: DiffusionPipeline) -> None:
    """Raise ``FactoryError`` where two calls of a factory returned the same modules.

    The second call was for another dtype: what it did to them, it did to the reference of all cells before.
    """
    for name, part in made.components.items():
        if isinstance(part, torch.nn.Module) and part is other.components.get(name):
            raise FactoryError(
                f"the factory returned the same {name} twice, for two dtypes; make a new one in every call"
            )

"""What the tests of backends share: PixArt-Sigma's layers counted by hand, calls of its parts, a kernel's error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.quantize.base import Backend, Spec
from qregress.quantize.coverage import inner_tensors

#: Linear layers of the pocket PixArt-Sigma's transformer. Each of 8 blocks has query, key, value and output of self-
#: and of cross-attention, and 2 of its feed-forward network; outside are the timestep embedder's 2, the projection to
#: shifts and scales, the caption projection's 2, and proj_out. Its one convolution embeds patches.
BLOCKS = 8
DENOISER = BLOCKS * (4 + 4 + 2) + (2 + 1) + 2 + 1
#: Of its T5 with 3 blocks: query, key, value, output; and of the gated feed-forward network wi_0, wi_1, wo.
ENCODER_BLOCKS = 3
ENCODER = ENCODER_BLOCKS * (4 + 3)

#: The components that are quantized, alike.
BOTH = ("transformer", "text_encoder")

#: Half a unit in the last place, relative.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def found(backend: Backend, component: nn.Module) -> dict[str, str]:
    """Full name -> weight type, of all modules with a quantized weight."""
    kinds = {name: backend.weight_type(module) for name, module in component.named_modules()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def quantize_both(backend: Backend, pristine: DiffusionPipeline, weights: str) -> dict[str, nn.Module]:
    """Transformer and text encoder with one weight type, by name."""
    return backend.quantize(pristine, dict.fromkeys(BOTH, Spec(weights=weights)))


def quantize_all(
    backend: Backend, pristine: DiffusionPipeline, weights: str, *, denoiser: int, encoder: int
) -> dict[str, nn.Module]:
    """As ``quantize_both``; then so many layers of each are quantized, those that are eligible, and no original."""
    made = quantize_both(backend, pristine, weights)
    for name, count in zip(BOTH, (denoiser, encoder), strict=True):
        quantized = found(backend, made[name])
        assert (len(quantized), set(quantized.values())) == (count, {weights})
        assert quantized.keys() == backend.eligible(pristine.components[name])
        assert found(backend, pristine.components[name]) == {}
    return made


def misplaced(component: nn.Module) -> list[str]:
    """Parameters and buffers of which anything lies at an address that is no multiple of 16."""
    tensors = (*component.named_parameters(), *component.named_buffers())
    return [name for name, tensor in tensors if any(part.data_ptr() % 16 for part in inner_tensors(tensor))]


def packings(backend: Backend, made: dict[str, nn.Module]) -> set[str]:
    """How the quantized weights of some components are packed, each way once."""
    return {backend.packing(part.get_submodule(name)) for part in made.values() for name in found(backend, part)}


def call_denoiser(denoiser: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """The transformer on seeded noise: float32 of ``[2, 8, 16, 16]``."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        (predicted,) = denoiser(
            torch.randn(2, 4, 16, 16, generator=draw).to(dtype),
            encoder_hidden_states=torch.randn(2, 7, 128, generator=draw).to(dtype),
            timestep=torch.tensor([999, 400]),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )
    assert predicted.isfinite().all()
    return predicted.float()  # type: ignore[no-any-return]


def call_encoder(encoder: nn.Module) -> torch.Tensor:
    """The text encoder on 20 different tokens: float32 of ``[1, 20, 128]``."""
    with torch.no_grad():
        states = encoder(torch.arange(2, 22)[None]).last_hidden_state
    assert states.isfinite().all()
    return states.float()  # type: ignore[no-any-return]


def distance(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Frobenius norm of the difference, relative to that of the reference."""
    return float((value - reference).norm() / reference.norm())


class Fidelity:
    """Holds what each quantized linear layer returns against the float32 product of its dequantized weight.

    ``errors`` with the inputs as the backend says that the kernel quantizes them; ``plain`` with those given.
    """

    def __init__(self, backend: Backend, component: nn.Module) -> None:
        self.errors: list[float] = []
        self.plain: list[float] = []
        for module in component.modules():
            if isinstance(module, nn.Linear) and backend.weight_type(module) is not None:
                module.register_forward_hook(self._hook(backend))

    def _hook(self, backend: Backend) -> Any:
        def compare(module: nn.Linear, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            weight = backend.dequantize(module).values
            bias = None if module.bias is None else module.bias.float()
            for kept, x in ((self.errors, backend.quantize_input(module, args[0])), (self.plain, args[0])):
                kept.append(distance(output.float(), nn.functional.linear(x.float(), weight, bias)))

        return compare


@dataclass(frozen=True)
class Called:
    """Quantized components after a call of each.

    ``moved``: how far the denoiser's output is from the unquantized one's, see ``distance``. ``denoiser`` and
    ``encoder``: what their layers returned.
    """

    moved: float
    denoiser: Fidelity
    encoder: Fidelity

    @property
    def layers(self) -> tuple[int, int]:
        """How many calls of quantized layers were compared in each."""
        return len(self.denoiser.errors), len(self.encoder.errors)

    @property
    def error(self) -> float:
        """The largest of all layers."""
        return max(self.denoiser.errors + self.encoder.errors)


def call_both(backend: Backend, made: dict[str, nn.Module], pristine: DiffusionPipeline) -> Called:
    """Call what ``quantize_both`` made, and the unquantized denoiser, in the pipeline's own dtype."""
    dtype = pristine.transformer.dtype
    denoiser, encoder = (Fidelity(backend, made[name]) for name in BOTH)
    moved = distance(call_denoiser(made["transformer"], dtype), call_denoiser(pristine.transformer, dtype))
    call_encoder(made["text_encoder"])
    return Called(moved, denoiser, encoder)

"""What the tests of backends share: PixArt-Sigma's layers counted by hand, calls of its parts, a kernel's error."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qregress.quantize.base import Backend

#: Linear layers of the pocket PixArt-Sigma's transformer. Each of 8 blocks has query, key, value and output of self-
#: and of cross-attention, and 2 of its feed-forward network; outside are the timestep embedder's 2, the projection to
#: shifts and scales, the caption projection's 2, and proj_out. Its one convolution embeds patches.
BLOCKS = 8
DENOISER = BLOCKS * (4 + 4 + 2) + (2 + 1) + 2 + 1
#: Of its T5 with 3 blocks: query, key, value, output; and of the gated feed-forward network wi_0, wi_1, wo.
ENCODER_BLOCKS = 3
ENCODER = ENCODER_BLOCKS * (4 + 3)

#: Half a unit in the last place, relative.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def found(backend: Backend, component: nn.Module) -> dict[str, str]:
    """Full name -> weight type, of all modules with a quantized weight."""
    kinds = {name: backend.weight_type(module) for name, module in component.named_modules()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


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
            for kept, x in ((self.errors, backend.quantize_input(module, args[0])), (self.plain, args[0].float())):
                kept.append(distance(output.float(), nn.functional.linear(x, weight, bias)))

        return compare

"""What the rest of qregress knows of a quantization library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import torch
from torch import nn

from qregress.errors import ConfigError
from qregress.quantize import BACKENDS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a setting asks of one component.

    ``weights``: the weight type, ``None`` where the component stays as it is. ``activations``: their type, ``None`` for
    unquantized ones. ``include`` and ``exclude``: shell-style patterns of full module names; without any of ``include``
    all modules are meant. ``fuse_qkv``: the query, key and value projections are joined before anything is quantized.
    """

    weights: str | None = None
    activations: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fuse_qkv: bool = False

    def means(self, name: str) -> bool:
        """Whether a module of that full name is to be quantized, if it can be."""
        included = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


class Cuts(msgspec.Struct, frozen=True):
    """Where a kernel makes a sum in parts, from the last inputs on, and rounds what has come together to its dtype.

    ``places``: the first input of the part after each cut, rising. ``here``: which sums are cut there, bool,
    ``[places, tokens, columns]``, of columns of ``width`` outputs.
    """

    places: tuple[int, ...]
    here: torch.Tensor
    width: int


class Dequantized(msgspec.Struct, frozen=True):
    """What a quantized weight stands for, in the shape of the unquantized weight.

    ``values``: float32. ``rounded``: float32, the root of the sum of squares of what a kernel that computes in the
    weight's dtype rounds on the way to each value: the value itself, of either sign, and a product that a shift is
    taken off.
    ``group``: how many values, along the inputs, share a scale; ``None`` for all of them. ``alike``: the chance that
    two of them are equal, as equal ones are rounded equally, ``[outputs, groups]``. Of eight bits, where equal values
    are rare, it is one for all groups, and ``sample`` is some of the bytes, uint8, that it is told from. Without
    either: of 16 different ones.
    ``stepwise``: makes the values as a kernel has them that unpacks weights first, rounded to their dtype at every
    step; ``None``: at the end. ``cuts``: of some tokens, by their places, of a call with
    so many, where the kernel cuts sums; ``None``: nowhere.
    """

    values: torch.Tensor
    rounded: torch.Tensor
    group: int | None = None
    alike: torch.Tensor | None = None
    sample: torch.Tensor | None = None
    stepwise: Callable[[], torch.Tensor] | None = None
    cuts: Callable[[int, torch.Tensor], Cuts | None] | None = None


def alike(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The chance that two values of a group are equal; ``codes [..., size]`` of few bits, returned without the last."""
    counts = torch.zeros(*codes.shape[:-1], 2**bits, device=codes.device)
    counts.scatter_add_(-1, codes.long(), torch.ones((), device=codes.device).expand(codes.shape))
    return (counts / codes.shape[-1]).square().sum(-1)


def sampled(codes: torch.Tensor) -> torch.Tensor:
    """Bytes of enough outputs, uint8 ``[bytes]``, of codes of eight bits, ``[outputs, ...]``."""
    some = codes[:: max(1, codes.numel() // _ENOUGH)]
    return some.contiguous().view(torch.uint8).flatten()


_ENOUGH = 2**18  # a thousand for each of 256 levels


class Backend(Protocol):
    """A quantization library. A class that extends it has the defaults of what is optional."""

    def prepare(
        self, weights: Iterable[str], device: str, say: Callable[[str], None], activations: Iterable[str] = ()
    ) -> str | None:
        """Build what these weight types need, once and outside every timing; and types of activations, where any are.

        ``say`` puts a line on the screen before something slow starts. Returns one line that says what is missing
        where this machine cannot run them, else ``None``.
        """

    def eligible(self, component: nn.Module) -> frozenset[str]:
        """Full names of the modules of an unquantized component whose weights the library quantizes if not told else.

        By the component, as some libraries leave modules by their names, and by lists that the component's class has.
        """

    def quantize(self, pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
        """New, quantized modules for the named components of a pipeline, which itself stays as it is.

        Every ``Spec`` has a weight type. The new modules own their memory and are in evaluation mode; activations are
        calibrated afterwards, see ``calibration``.
        """

    def calibration(self) -> AbstractContextManager[None]:
        """Within it, calls of a pipeline set the scales of its quantized activations, which are then kept.

        Optional, where the registry says ``calibrates``; the other backends raise ``ConfigError``.
        """
        able = ", ".join(name for name, info in BACKENDS.items() if info.calibrates)
        raise ConfigError(f"{type(self).__name__} sets no scales of activations from calls; backends that do: {able}")

    def weight_type(self, module: nn.Module) -> str | None:
        """The type of a module's weight as a configuration names it, ``None`` for a weight that is not quantized."""

    def activation_type(self, module: nn.Module) -> str | None:
        """The type that a quantized module's inputs are quantized to, as a setting names it; ``None``: to none.

        Of one without the scale that calibration would have set, some other word. Optional.
        """
        _ = module
        return None

    def packing(self, module: nn.Module) -> str:
        """How the scales of a quantized weight lie: ``axis 0``, ``group 128``, ``block 64``, ``tensor``; else empty."""

    def dequantize(self, module: nn.Module) -> Dequantized:
        """The values that a quantized weight stands for.

        Worked out from data and scales in float32 where the format is known, so that it does not share an error with
        the library's own kernels; by the library where the data is packed for one kernel.
        """

    def quantize_input(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The values, of any floating dtype, that a quantized module multiplies its weight with when called with ``x``.

        Optional: other than ``x`` where activations are quantized.
        """
        _ = module
        return x


class Saver(Protocol):
    """How a backend's quantized components are kept in files."""

    def save(self, component: nn.Module, folder: Path) -> None:
        """Into a folder that does not exist yet."""

    def load(self, folder: Path, like: nn.Module) -> nn.Module:
        """What ``save`` wrote, on the device of the component that it was saved from, with its dtypes."""

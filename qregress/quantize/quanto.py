"""optimum-quanto, through its own ``quantize`` and ``freeze``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable

import ninja
import torch
from optimum.quanto import QTensor, freeze, qfloat8, qint2, qint4, qint8, quantize
from torch import nn

from qregress.quantize import extensions

_TYPES = {"float8": qfloat8, "int8": qint8, "int4": qint4, "int2": qint2}
_NAMES = {qtype.name: name for name, qtype in _TYPES.items()}


class Quanto:
    """See ``base.Backend``."""

    def prepare(self, weights: Iterable[str], device: str, say: Callable[[str], None]) -> str | None:
        """Compile quanto's C++ extension for packed weights (45 s on two CPU cores), and quantize something once.

        What the library sets up on first use and keeps (8 KiB) would else count as the first cell's memory.
        """
        wanted = set(weights)
        missing = self._build(wanted, say) if device == "cpu" else None
        if missing is None:
            for kind in sorted(wanted):
                self.quantize(nn.Sequential(nn.Linear(128, 128, dtype=torch.bfloat16, device=device)), kind, ())
        return missing

    def _build(self, weights: set[str], say: Callable[[str], None]) -> str | None:
        packed = sorted(extensions.CPP.weights.intersection(weights))
        if not packed:
            return None
        what = f"{' and '.join(packed)} weights need optimum-quanto's C++ extension"
        if shutil.which("ninja") is None:
            # The package's own is on PATH in an activated environment only. One that is there stays the one that is
            # used: another version of ninja would not know the log of what is built, and build it again.
            os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), ninja.BIN_DIR])
        if not extensions.is_built(extensions.CPP):
            tool = extensions.lacking(extensions.CPP)
            if tool is not None:
                return f"{what}: no {tool.name} found; {tool.how}"
            say(f"building optimum-quanto's C++ extension, once ({extensions.CPP.cost})")
        try:
            torch.ops.quanto.unpack(torch.zeros(8, dtype=torch.uint8), 4)
        except (RuntimeError, OSError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            return f"{what}: its build failed on {platform.machine()}: {reason}"
        return None

    def eligible(self, module: nn.Module) -> bool:
        """Quanto quantizes the weights of linear layers and of 2-d convolutions."""
        return isinstance(module, (nn.Linear, nn.Conv2d))

    def quantize(self, component: nn.Module, weights: str, exclude: tuple[str, ...]) -> None:
        """Quantize and freeze: only frozen weights take less memory."""
        quantize(component, weights=_TYPES[weights], exclude=list(exclude) or None)
        freeze(component)

    def weight_type(self, weight: torch.Tensor) -> str | None:
        """By the tensor's own qtype, not by the module's class: an unfrozen module has a plain weight."""
        if not isinstance(weight, QTensor):
            return None
        name: str = weight.qtype.name
        return _NAMES.get(name, name)


def backend() -> Quanto:
    """The backend that the registry loads."""
    return Quanto()

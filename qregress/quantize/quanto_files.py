"""optimum-quanto's ``Quantized…Model`` classes, for whichever class a component has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from optimum.quanto import QTensor, QuantizedDiffusersModel, QuantizedTransformersModel
from torch import nn
from transformers import PreTrainedModel

from qregress.quantize.copies import owned


class QuantoFiles:
    """See ``base.Saver``."""

    def save(self, component: nn.Module, folder: Path) -> None:
        """Weights as safetensors, with quanto's map of what is quantized how."""
        _wrapper(type(component))(component).save_pretrained(folder)

    def load(self, folder: Path, like: nn.Module) -> nn.Module:
        """Into a new model of the class, which comes with all that is not quantized in float32.

        That is put back into the dtypes that it had, tensor by tensor: ``.to(dtype)`` of a frozen model raises. Weights
        lie in the file's block as they come, at any address: see ``owned``.
        """
        loaded: nn.Module = _wrapper(type(like)).from_pretrained(folder)._wrapped  # noqa: SLF001 - has no other name
        dtypes = {name: tensor.dtype for name, tensor in (*like.named_parameters(), *like.named_buffers())}
        for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
            plain = not isinstance(tensor.data, QTensor) and tensor.is_floating_point()
            if plain and name in dtypes:
                tensor.data = tensor.data.to(dtypes[name])
        return owned(loaded).to(next(like.parameters()).device).eval()


def _wrapper(cls: type[nn.Module]) -> Any:
    """A class of quanto's for a class of model; it has one of its own for few."""
    if issubclass(cls, ModelMixin):
        return type(f"Quantized{cls.__name__}", (QuantizedDiffusersModel,), {"base_class": cls})
    if issubclass(cls, PreTrainedModel):
        maker = type("Maker", (), {"from_config": staticmethod(getattr(cls, "_from_config"))})  # noqa: B009
        return type(f"Quantized{cls.__name__}", (QuantizedTransformersModel,), {"auto_class": maker})
    raise TypeError(f"optimum-quanto saves models of diffusers and transformers, and {cls.__name__} is neither")

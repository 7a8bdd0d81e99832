"""optimum-quanto as Diffusers and transformers apply it: while ``from_pretrained`` loads a pipeline."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
from diffusers import PipelineQuantizationConfig
from safetensors import safe_open
from torch import nn

from qregress.errors import LIBRARY_ERRORS, ConfigError, ProduceError, typed_line
from qregress.pipelines.assemble import DTYPE
from qregress.pipelines.variants import weights_of
from qregress.quantize.base import Backend, Spec
from qregress.quantize.copies import owned
from qregress.quantize.quanto import Quanto

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Diffusers(Quanto):
    """See ``base.Backend``. Weights are quanto's own, and so is what reads them."""

    def eligible(self, component: nn.Module) -> frozenset[str]:
        """Linear layers. Which of them it leaves in spite of that is for the manifest to tell: T5's ``wo``, say."""
        return frozenset(name for name, part in component.named_modules() if isinstance(part, nn.Linear))

    def quantize(self, pristine: DiffusionPipeline, specs: dict[str, Spec]) -> dict[str, nn.Module]:
        """The named components out of a pipeline loaded anew, with a ``PipelineQuantizationConfig``.

        From the files that they came from where those hold what the components hold, else from files written for this.
        Raises ``ConfigError`` for ``include``, which the libraries do not have, and ``ProduceError`` with one line
        where they cannot load a component.
        """
        mapping = {name: _config(name, pristine.components[name], spec) for name, spec in specs.items()}
        others = {name: part for name, part in pristine.components.items() if name not in specs}
        dtypes: dict[str, torch.dtype] = {name: pristine.components[name].dtype for name in specs}
        device = pristine.device
        with tempfile.TemporaryDirectory(prefix="qregress-") as folder, _deprecated():
            _lay_out(pristine, specs, Path(folder))
            try:
                loaded = type(pristine).from_pretrained(
                    folder,
                    local_files_only=True,
                    quantization_config=PipelineQuantizationConfig(quant_mapping=mapping),
                    **{DTYPE: dtypes},
                    **others,
                )
            except LIBRARY_ERRORS as error:
                raise ProduceError(f"loading with quantization failed: {typed_line(error)}") from error
            made = {name: owned(getattr(loaded, name)) for name in specs}
        return {name: module.to(device) for name, module in made.items()}

    def calibration(self) -> AbstractContextManager[None]:
        """None: neither library is told of activations here."""
        return Backend.calibration(self)


@contextmanager
def _deprecated() -> Iterator[None]:
    """Within it nobody says that quanto's configuration is deprecated: in each cell it is no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Qq]uanto.* is deprecated", category=FutureWarning)
        yield


def _config(name: str, component: nn.Module, spec: Spec) -> Any:
    """The configuration of the library that the component is of."""
    if spec.include:
        raise ConfigError(f"{name}: include: Diffusers has no such argument; name what is to be left, in exclude")
    is_diffusers = isinstance(component, diffusers.ModelMixin)
    linear = [part for part, module in component.named_modules() if isinstance(module, nn.Linear)]
    left = [part for part in linear if not spec.means(part)]
    if not is_diffusers:
        # Regular expressions, matched from the start of a full name.
        return transformers.QuantoConfig(
            weights=spec.weights, modules_to_not_convert=[re.escape(part) for part in left] or None
        )
    with _deprecated():
        return diffusers.QuantoConfig(weights_dtype=spec.weights, modules_to_not_convert=_by_leaves(linear, left))


def _by_leaves(linear: list[str], left: list[str]) -> list[str]:
    """Names for Diffusers, which compares the last part of a module's name alone.

    What cannot be said that way is passed on as its full name, as its documentation has it. The library ignores that
    without a word (0.42.1): here as for everybody, and the manifest shows it.
    """
    quantized = {name.rpartition(".")[2] for name in linear if name not in left}
    leaves = {name: name.rpartition(".")[2] for name in left}
    return sorted({name if leaf in quantized else leaf for name, leaf in leaves.items()})


def _lay_out(pristine: DiffusionPipeline, names: dict[str, Spec], folder: Path) -> None:
    """A pipeline's folder with the named components in it: links to the files that they came from, where those hold.

    Not those of the pipeline's folder unseen: a component can have come from elsewhere, or been changed since.
    """
    pristine.save_config(str(folder))
    for name in names:
        component = pristine.components[name]
        places = (Path(str(pristine.config.get("_name_or_path") or "")) / name, Path(str(_origin(component) or "")))
        source = next((place for place in places if _holds(place, component)), None)
        if source is not None:
            (folder / name).symlink_to(source.resolve(), target_is_directory=True)
        else:
            component.save_pretrained(str(folder / name))


def _origin(component: Any) -> str | None:
    """What the component remembers of where it was loaded from."""
    if isinstance(component, diffusers.ModelMixin):
        return component.config.get("_name_or_path")  # type: ignore[no-any-return]
    return getattr(component, "name_or_path", None)


def _holds(place: Path, component: nn.Module) -> bool:
    """Whether a folder's files have just the values that a component has: once read, and no second copy of them all."""
    if not (place / "config.json").is_file():
        return False
    # Of no variant: the libraries are not told of any.
    files = [place / name for name in weights_of((file.name for file in place.iterdir()), None)]
    if not files:
        return False
    state = component.state_dict()
    seen = set()
    for file in files:
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - it is no mapping
                ours = state.get(key)
                if ours is None or not torch.equal(stored.get_tensor(key).to(ours.dtype), ours.cpu()):
                    return False
                seen.add(ours.data_ptr())
    return all(tensor.data_ptr() in seen for tensor in state.values())  # tied ones are stored once


class DiffusersFiles:
    """See ``base.Saver``. Diffusers' own files; transformers cannot save what its ``QuantoConfig`` quantized."""

    def save(self, component: Any, folder: Path) -> None:
        """``save_pretrained``. What transformers refuses, it says itself."""
        component.save_pretrained(folder)

    def load(self, folder: Path, like: nn.Module) -> nn.Module:
        """``from_pretrained``, which finds the quantization in the configuration that was saved."""
        with _deprecated():
            kind: Any = type(like)
            loaded: nn.Module = kind.from_pretrained(str(folder), local_files_only=True, **{DTYPE: like.dtype})
        return owned(loaded).to(next(like.parameters()).device)


def backend() -> Diffusers:
    """The backend that the registry loads."""
    return Diffusers()

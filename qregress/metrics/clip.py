"""CLIP score: how well an image fits its prompt (Hessel et al., "CLIPScore", EMNLP 2021), through open_clip.

100 x max(cosine, 0), the scale of torchmetrics' CLIPScore, whose own loading breaks with recent transformers.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qregress.errors import typed_line
from qregress.metrics.names import FOLDER_PREFIX, HUB_PREFIX, POCKET_CLIP, validate_clip_name
from qregress.metrics.tensors import check_images, exact_float32
from qregress.metrics.weights import MetricError, WeightsId, digest_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image
    from torch import Tensor, nn

_PREPROCESS_KEYS = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
_PROBE = "a small red circle above a large blue square, 2 cats; naïve"


class Clip:
    """A CLIP model, its tokenizer and its preprocessing, with the identity of all three."""

    def __init__(
        self,
        model: nn.Module,
        tokenize: Callable[[list[str]], Tensor],
        preprocess: Callable[[Image], Tensor],
        weights: WeightsId,
        device: str,
    ) -> None:
        self._model = model
        self._tokenize = tokenize
        self._preprocess = preprocess
        self._device = device
        self.weights = weights

    def embed_images(self, images: Tensor, batch_size: int = 1) -> Tensor:
        """Unit vectors, float32 [n, width] on the CPU, of float32 images [n, 3, h, w] in [0, 1].

        Images are taken back to 8 bits, which loses nothing of what a PNG holds, and go through open_clip's own PIL
        transform: a stored image scores the same here and there. With ``batch_size`` 1 the vector of an image does
        not depend on its neighbours, not even by rounding. Raises ``MetricError`` for anything that is no image.
        """
        check_images(images, self.weights.name)
        pixels = torch.stack([self._preprocess(_to_pil(image)) for image in images])
        return self._embed(self._model.encode_image, pixels, batch_size)

    def embed_text(self, prompts: Sequence[str], batch_size: int = 1) -> Tensor:
        """Unit vectors, float32 [n, width] on the CPU, of prompts; what exceeds the model's context is cut off."""
        if not prompts:
            raise MetricError(f"{self.weights.name}: no prompts to embed")
        return self._embed(self._model.encode_text, self._tokenize(list(prompts)), batch_size)

    def score(self, images: Tensor, prompts: Sequence[str]) -> list[float]:
        """100 x max(cosine, 0) of each image, float32 [n, 3, h, w] in [0, 1], with the prompt at the same place.

        Raises ``MetricError`` where there are not as many prompts as images.
        """
        if len(images) != len(prompts):
            raise MetricError(f"{self.weights.name}: {len(images)} images but {len(prompts)} prompts; pairs are scored")
        cosine = (self.embed_images(images) * self.embed_text(prompts)).sum(1)
        return [float(value) for value in (100 * cosine).clamp(min=0)]

    def _embed(self, encode: Any, inputs: Tensor, batch_size: int) -> Tensor:
        with exact_float32():
            parts = [encode(part.to(self._device), normalize=True).float().cpu() for part in inputs.split(batch_size)]
        return torch.cat(parts)


def load_clip(spec: str, device: str = "cpu") -> Clip:
    """Load ``"pocket"`` (ships with qregress), ``"hf-hub:…"``, ``"local-dir:…"`` or ``"<model>/<pretrained tag>"``.

    Float32 throughout. Raises ``MetricError`` with one line for a name that is none, for missing or damaged files and
    for a download that fails; a model without trained weights is never scored with.
    """
    validate_clip_name(spec)
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    model_name, tag = open_clip_name(spec)
    try:
        model = open_clip.create_model(model_name, pretrained=tag, precision="fp32", require_pretrained=True)
        tokenize = open_clip.get_tokenizer(model_name)
        config = open_clip.get_model_preprocess_cfg(model)
        preprocess = image_transform_v2(PreprocessCfg(**config), is_train=False)
        probe = tokenize([_PROBE])
    except Exception as error:  # a hub, a cache, a JSON file and a checkpoint have no common error
        raise MetricError(
            f"clip = '{spec}': the model cannot be loaded ({typed_line(error, None)}); "
            "expected its configuration, tokenizer and weights in the folder, in the cache, or to be downloaded"
        ) from error
    # A new vocabulary or another crop changes scores as much as new weights do.
    also = json.dumps([{key: config.get(key) for key in _PREPROCESS_KEYS}, probe.tolist()], sort_keys=True)
    weights = WeightsId(_stable_name(spec), digest_tensors(model.state_dict(), also))
    return Clip(model.eval().requires_grad_(requires_grad=False).to(device), tokenize, preprocess, weights, device)


def open_clip_name(spec: str) -> tuple[str, str | None]:
    """Name and pretrained tag as open_clip wants them. Raises ``MetricError`` for one that open_clip does not have."""
    if spec == POCKET_CLIP:
        folder = Path(str(files("qregress"))) / "zoo" / "clip"
        if not (folder / "open_clip_config.json").is_file():
            raise MetricError(f"clip = 'pocket': {folder} has no model; reinstall qregress")
        return f"{FOLDER_PREFIX}{folder}", None
    if spec.startswith((FOLDER_PREFIX, HUB_PREFIX)):
        return spec, None
    model_name, _, tag = spec.rpartition("/")
    import open_clip

    model_name = model_name.replace("/", "-")  # open_clip spells OpenAI's "ViT-B/32" so
    for kind, name, known in (
        ("model", model_name, open_clip.list_models()),
        ("pretrained tag", tag, open_clip.list_pretrained_tags_by_model(model_name)),
    ):
        if name not in known:
            close = get_close_matches(name, known, n=1) or known[:8] or ["none"]
            raise MetricError(f"clip = '{spec}': open_clip has no {kind} '{name}'; nearest: {', '.join(close)}")
    return model_name, tag


def _stable_name(spec: str) -> str:
    """The same on every machine: of a folder its own name only."""
    if spec.startswith(FOLDER_PREFIX):
        spec = FOLDER_PREFIX + Path(spec.removeprefix(FOLDER_PREFIX)).resolve().name
    return f"open_clip/{spec}"


def _to_pil(image: Tensor) -> Image:
    from PIL import Image as PilImage

    return PilImage.fromarray((image * 255).round().to("cpu", torch.uint8).permute(1, 2, 0).contiguous().numpy())

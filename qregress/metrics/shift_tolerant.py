"""Shift-tolerant LPIPS (ST-LPIPS) on AlexNet.

Ghildyal and Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022. The weights, calibrated on human judgements,
are read from the installed package stlpips-pytorch (BSD 2-clause). The package is not imported: its modules import two
packages that it does not declare. The network is written here after the paper: AlexNet whose strides are taken out of
the first convolution and the max pools, and put into blur pools with reflection padding that follow them (Zhang,
"Making Convolutional Networks Shift-Invariant Again", ICML 2019).
"""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from qregress.metrics.weights import MetricError, WeightsId, digest_file

PACKAGE = "stlpips_pytorch"
WEIGHTS = Path("weights", "vST0.0", "alex_shift_tolerant.pth")

# (input channels, output channels, kernel size, padding) of AlexNet's five convolutions, all with stride 1 here,
# and the name of each in the weights file.
_CONVOLUTIONS = ((3, 64, 11, 2), (64, 192, 5, 2), (192, 384, 3, 1), (384, 256, 3, 1), (256, 256, 3, 1))
_STORED_AS = ("net.slice1.0", "net.slice2.5", "net.slice3.9", "net.slice4.11", "net.slice5.13")

# LPIPS standardises images on the scale [-1, 1] with ImageNet's statistics (Zhang et al., CVPR 2018).
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
_TINY = 1e-10  # keeps a feature vector of zeros from dividing by zero


def weights_file() -> Path:
    """Path of the AlexNet weights inside the installed package. Raises ``MetricError`` where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / WEIGHTS
        if path.is_file():
            return path
    found = f"has no {WEIGHTS.as_posix()}" if spec else "is not installed"
    raise MetricError(
        f"lpips = 'st-alex': the package stlpips-pytorch {found}; pip install --force-reinstall stlpips-pytorch"
    )


class BlurPool(nn.Module):
    """Halve height and width without aliasing: reflection padding by 2, a 3 x 3 binomial filter, stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.channels = channels
        self.register_buffer("kernel", torch.outer(row, row).expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to [n, channels, h // 2 + 1, w // 2 + 1]."""
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, self.get_buffer("kernel"), stride=2, groups=self.channels)


class ShiftTolerantAlexNet(nn.Module):
    """The distance of two images: squared differences of unit feature vectors of five layers, weighted and averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, size, padding=padding) for inputs, outputs, size, padding in _CONVOLUTIONS
        )
        self.blurs = nn.ModuleList(BlurPool(channels) for channels in (64, 64, 192))
        for layer, (_, channels, _, _) in enumerate(_CONVOLUTIONS):
            self.register_buffer(f"head{layer}", torch.empty(1, channels, 1, 1))
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit vectors per place, five tensors [n, channels, h', w'], of float32 images [n, 3, h, w] in [0, 1]."""
        x = (2 * images - 1 - self.get_buffer("mean")) / self.get_buffer("std")
        layers = []
        for layer, convolution in enumerate(self.convolutions):
            if layer in (1, 2):
                x = self.blurs[layer](functional.max_pool2d(x, 3, stride=1))
            x = convolution(x)
            if layer == 0:
                x = self.blurs[0](x)  # before the rectifier: the published weights were trained so
            x = functional.relu(x)
            layers.append(x)
        return [layer / (layer.square().sum(1, keepdim=True).sqrt() + _TINY) for layer in layers]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [n] of images ``a`` and ``b``, both float32 [n, 3, h, w] in [0, 1]. 0 for identical images."""
        distance = torch.zeros(a.shape[0], device=a.device)
        for layer, (one, other) in enumerate(zip(self.features(a), self.features(b), strict=True)):
            weighted = (one - other).square_() * self.get_buffer(f"head{layer}")
            distance = distance + weighted.sum(1).mean((1, 2))
        return distance


def load_shift_tolerant() -> tuple[ShiftTolerantAlexNet, WeightsId]:
    """The network with its published weights, on the CPU, and the SHA-256 of the weights file.

    Raises ``MetricError`` where the package is missing or its file is not what it should be.
    """
    path = weights_file()
    net = ShiftTolerantAlexNet()
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        state = {f"head{layer}": stored[f"lin{layer}.model.1.weight"] for layer in range(len(_CONVOLUTIONS))}
        for layer, name in enumerate(_STORED_AS):
            for part in ("weight", "bias"):
                state[f"convolutions.{layer}.{part}"] = stored[f"{name}.{part}"]
        net.load_state_dict(state)
    except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise MetricError(
            f"lpips = 'st-alex': {path} cannot be read as its weights ({type(error).__name__}); "
            "pip install --force-reinstall stlpips-pytorch"
        ) from error
    return net.eval().requires_grad_(requires_grad=False), WeightsId("st-alex", digest_file(path))

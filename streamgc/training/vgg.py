"""The perceptual loss of pix2pixHD: weighted L1 of relu1_1 … relu5_1.

With torchvision's VGG19 weights in a file it is pix2pixHD's own; otherwise the VGG16 trunk inside stlpips-pytorch
stands in. `VggLoss.trunk` says which, for the run's card.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.errors import TrainingError
from streamgc.runtime.engine import first_line
from streamgc.training.perceptual import weights_file

WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_VGG16 = ((0, 2), (6, 8), (12, 14, 16), (20, 22, 24), (28,))
_VGG19 = ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28,))
"""Numbers of the convolutions up to conv5_1 in either file, block by block."""


class VggLoss(nn.Module):
    """Distance of two batches (B, 3, H, W) in [-1, 1], a scalar; pictures of at least 16 pixels a side."""

    def __init__(self, vgg19: Path | None = None) -> None:
        """``vgg19``: a torchvision state file (vgg19-dcbb9e9d.pth). Raises TrainingError when weights are missing."""
        super().__init__()
        self.trunk = "VGG16 of stlpips-pytorch" if vgg19 is None else "VGG19 of torchvision"
        path = weights_file() if vgg19 is None else vgg19
        try:
            state = cast("OrderedDict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
            raise TrainingError(f"cannot read {path}: {first_line(error)}") from None
        self.blocks = nn.ModuleList()
        for number, layers in enumerate(_VGG16 if vgg19 is None else _VGG19, 1):
            prefixes = [f"net.slice{number}.{n}" if vgg19 is None else f"features.{n}" for n in layers]
            self.blocks.append(nn.ModuleList(_convolution(state, prefix) for prefix in prefixes))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def features(self, picture: Tensor) -> list[Tensor]:
        """relu1_1 … relu5_1."""
        x = ((picture + 1) / 2 - cast(Tensor, self.mean)) / cast(Tensor, self.deviation)
        found = []
        for number, block in enumerate(self.blocks):
            if number:
                x = F.max_pool2d(x, 2)
            for index, convolution in enumerate(cast(nn.ModuleList, block)):
                x = F.relu(convolution(x))
                if index == 0:
                    found.append(x)
        return found

    def forward(self, shown: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.features(truth)
        total = shown.new_zeros(())
        for weight, a, b in zip(WEIGHTS, self.features(shown), targets, strict=True):
            total = total + weight * F.l1_loss(a, b)
        return total


def _convolution(state: OrderedDict[str, Tensor], prefix: str) -> nn.Conv2d:
    if f"{prefix}.weight" not in state:
        raise TrainingError(f"the VGG weights have no {prefix}.weight: not the file that is expected")
    weight = state[f"{prefix}.weight"]
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    with torch.no_grad():
        convolution.weight.copy_(weight)
        if convolution.bias is not None:
            convolution.bias.copy_(state[f"{prefix}.bias"])
    return convolution

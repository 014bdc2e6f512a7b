"""The perceptual training loss: LPIPS-like distance on the VGG16 trunk of the package stlpips-pytorch.

Only the trunk and its learned layer weights are used, never AlexNet: that one is the verdict in ``evaluation``.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.errors import TrainingError

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
"""Convolutions of VGG16 up to relu4_3; the fifth block sees too little of a training crop."""
STATE_NAMES = (
    ("slice1.0", "slice1.2"),
    ("slice2.6", "slice2.8"),
    ("slice3.12", "slice3.14", "slice3.16"),
    ("slice4.20", "slice4.22", "slice4.24"),
)


def weights_file() -> Path:
    """Where stlpips-pytorch keeps its VGG weights. Raises TrainingError when the package is not installed."""
    spec = find_spec("stlpips_pytorch")
    if spec is None or spec.origin is None:
        raise TrainingError("perceptual loss needs stlpips-pytorch: pip install --no-deps stlpips-pytorch==0.0.2")
    return Path(spec.origin).parent / "weights" / "vST0.0" / "vgg_shift_tolerant.pth"


class PerceptualLoss(nn.Module):
    """Distance of two batches (B, 3, H, W) in [0, 1], weighted by a map (B, 1, H, W)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, depth: int = 4) -> None:
        """``depth`` 1…4: VGG16 blocks used."""
        super().__init__()
        state = cast("OrderedDict[str, Tensor]", torch.load(weights_file(), map_location="cpu", weights_only=True))
        self.register_buffer("shift", state["scaling_layer.shift"])
        self.register_buffer("scale", state["scaling_layer.scale"])
        self.blocks = nn.ModuleList()
        channels = 3
        for widths, names in zip(BLOCKS[:depth], STATE_NAMES, strict=False):
            convolutions = nn.ModuleList()
            for width, name in zip(widths, names, strict=True):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                convolution.weight.data = state[f"net.{name}.weight"]
                convolution.bias = nn.Parameter(state[f"net.{name}.bias"])
                convolutions.append(convolution)
                channels = width
            self.blocks.append(convolutions)
        self.lines = nn.ParameterList(
            [nn.Parameter(state[f"lin{i}.model.1.weight"].clamp(min=0)) for i in range(depth)]
        )
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, picture: Tensor) -> list[Tensor]:
        """Unit-normalised features after each block."""
        x = ((picture * 2 - 1) - self.shift) / self.scale
        x = x.contiguous(memory_format=torch.channels_last)
        found: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index:
                x = F.avg_pool2d(x, 2)
            for convolution in cast(nn.ModuleList, block):
                x = F.relu(convolution(x))
            found.append(x * torch.rsqrt((x * x).sum(1, keepdim=True) + 1e-6))
        return found

    def forward(self, shown: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.features(truth)
        total = shown.new_zeros(())
        for line, a, b in zip(self.lines, self.features(shown), targets, strict=True):
            distance = F.conv2d((a - b) ** 2, line)
            where = F.adaptive_avg_pool2d(weight, (distance.shape[-2], distance.shape[-1]))
            total = total + (distance * where).sum() / (where.sum() + 1e-3)
        return total

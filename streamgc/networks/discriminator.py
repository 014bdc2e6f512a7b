"""D: pix2pixHD's multi-scale patch discriminator, with the label planes beside the picture for D+."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = 3
SCALES = 2
FILTERS = 64


class PatchDiscriminator(nn.Module):
    """One scale: 4×4 convolutions, LeakyReLU 0.2, InstanceNorm except on the first layer."""

    def __init__(self, inputs: int, filters: int = FILTERS) -> None:
        super().__init__()
        stages = [nn.Sequential(nn.Conv2d(inputs, filters, 4, 2, 2), nn.LeakyReLU(0.2, inplace=True))]
        channels = filters
        for index in range(LAYERS):
            wider = min(channels * 2, 8 * filters)
            stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, wider, 4, 2 if index < LAYERS - 1 else 1, 2),
                    nn.InstanceNorm2d(wider),
                    nn.LeakyReLU(0.2, inplace=True),
                )
            )
            channels = wider
        stages.append(nn.Sequential(nn.Conv2d(channels, 1, 4, 1, 2)))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Discriminator(nn.Module):
    """Two scales; ``planes`` label planes are concatenated before the picture where D sees them."""

    def __init__(self, planes: int = 0, filters: int = FILTERS) -> None:
        super().__init__()
        self.planes = planes
        self.scales = nn.ModuleList(PatchDiscriminator(3 + planes, filters) for _ in range(SCALES))

    def forward(self, picture: Tensor, planes: Tensor | None) -> list[list[Tensor]]:
        """For each scale the features of every layer; the last is the judgement, 1 = real. Picture in [-1, 1]."""
        x = picture if planes is None or not self.planes else torch.cat([planes, picture], 1)
        found = []
        for index, scale in enumerate(self.scales):
            if index:
                x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            found.append(scale(x))
        return found

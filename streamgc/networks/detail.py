"""Detail: a picture twice as wide and high, from what a key that is larger than the code has of fine structure.

G makes the small picture and says by its flow where in the key each place comes from. What the large key has beyond a
small one is brought along that flow, and added where the small key, moved the same way, looks like what G made:
there, and only there, is its fine structure the picture's. Nothing here is trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.networks.lite import REST

SCALE = 2
"""The large picture's side over the small one's."""
ALIKE = 14.0
"""Grey levels between the moved key and G's picture, in the colour that differs most, mean of a place's surroundings,
from which on nothing is added."""
POOL = 4
"""Pixels of the small picture along the side of a place."""
CUBIC = -0.5
"""Keys' parameter of cubic interpolation; pictures are enlarged elsewhere with the same."""


class Detail(nn.Module):
    """``person`` u8 (1, H, W, 4) RGB + alpha as G makes it, ``flow`` f32 (1, 2, H/8, W/8) in pixels of that picture,
    ``key`` u8 (1, H, W, 3), ``fine`` f32 (1, 1, 2H, 2W) in grey levels → u8 (1, 2H, 2W, 4)."""

    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enlarge = Twice(4, cubic=True)
        self.enlarge_flow = Twice(2, cubic=False)
        self.enlarge_share = Twice(1, cubic=False)
        self.register_buffer("spread", torch.tensor([1.0, 1.0, 1.0, 0.0]).view(4, 1, 1, 1))

    def forward(self, person: Tensor, flow: Tensor, key: Tensor, fine: Tensor) -> Tensor:
        small = person.float().permute(0, 3, 1, 2)
        flow = F.softshrink(F.interpolate(flow, scale_factor=8.0, mode="bilinear", align_corners=False), REST)
        moved = _along(key.float().permute(0, 3, 1, 2), flow)
        # Of the three colours the one that differs most: cloth and skin may be equally bright.
        apart = F.avg_pool2d((moved - small[:, :3]).abs().amax(1, keepdim=True), POOL)
        apart = F.avg_pool2d(F.pad(apart, (1, 1, 1, 1), mode="replicate"), 3, 1)
        share = (1 - apart / ALIKE).clamp(0, 1)
        for _ in range(3):  # from a place of `POOL` pixels to half a pixel
            share = self.enlarge_share(share)
        added = share * _along(fine, SCALE * self.enlarge_flow(flow))
        large: Tensor = self.enlarge(small) + F.conv2d(added, self.spread)
        return (large.clamp(0, 255) + 0.5).to(torch.uint8).permute(0, 2, 3, 1)


class Twice(nn.Module):
    """Enlarge (1, C, a, b) to (1, C, 2a, 2b), cubic or linear, as a convolution: runtimes have no fast resizing."""

    weight: Tensor

    def __init__(self, channels: int, cubic: bool) -> None:
        super().__init__()
        rows = torch.tensor([[*_cubic(0.75), 0], [0, *_cubic(0.25)]] if cubic else [[0.25, 0.75, 0], [0, 0.75, 0.25]])
        self.reach = rows.shape[1] // 2
        one = torch.einsum("ai,bj->abij", rows, rows).reshape(4, *[rows.shape[1]] * 2)
        weight = torch.zeros(channels, 4, channels, *one.shape[1:])
        for channel in range(channels):
            weight[channel, :, channel] = one
        self.register_buffer("weight", weight.flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.reach,) * 4, mode="replicate")
        enlarged: Tensor = F.pixel_shuffle(F.conv2d(padded, self.weight), 2)
        return enlarged


def _cubic(place: float) -> list[float]:
    """Weights of the four neighbours of a point ``place`` beyond the second of them (Keys, 1981)."""

    def weight(distance: float) -> float:
        if distance <= 1:
            return (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
        return CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)

    return [weight(abs(place - neighbour)) for neighbour in (-1, 0, 1, 2)]


def _along(source: Tensor, flow: Tensor) -> Tensor:
    """Sample ``source`` (1, C, a, b) at each place plus ``flow`` (1, 2, a, b), in its own pixels; as `lite.warp`, but
    in the layout that sampling wants from the start."""
    height, width = source.shape[-2:]
    columns = torch.arange(width, device=source.device, dtype=torch.float32).view(1, 1, width, 1)
    rows = torch.arange(height, device=source.device, dtype=torch.float32).view(1, height, 1, 1)
    x = (2 * columns + 1) / width - 1
    y = (2 * rows + 1) / height - 1
    base = torch.cat([x.expand(1, height, width, 1), y.expand(1, height, width, 1)], -1)
    two = torch.full((1, 1, 1, 1), 2.0, device=source.device)
    grid = base + flow.permute(0, 2, 3, 1) * torch.cat([two / width, two / height], -1)
    sampled: Tensor = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled

"""The still networks as they are shipped: uint8 pictures and label maps in, uint8 pictures out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamgc.networks.still_spec import StillNetworks


def to_signed(picture: Tensor) -> Tensor:
    """uint8 (1, H, W, 3) → float (1, 3, H, W) in [-1, 1]."""
    return picture.to(torch.float32).permute(0, 3, 1, 2) * (1 / 127.5) - 1


def to_label_planes(labels: Tensor, classes: int) -> Tensor:
    """uint8 (1, H, W) → one-hot classes and the edges between labels, float (1, K + 1, H, W)."""
    hot = torch.stack([(labels == value).to(torch.float32) for value in range(classes)], 1)
    # An edge pixel differs from one of its four neighbours: then some class's neighbours do not agree with it.
    padded = nn.functional.pad(hot, (1, 1, 1, 1), mode="replicate")
    differs = torch.zeros_like(hot[:, :1])
    for shifted in (padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]):
        differs = torch.maximum(differs, (shifted - hot).abs().amax(1, keepdim=True))
    return torch.cat([hot, differs], 1)


class ShippedStillEncoder(nn.Module):
    """``picture`` u8 (1, H, W, 3), for SC also ``labels`` u8 (1, H, W) → ``latent`` f32 (1, C, h, w)."""

    def __init__(self, networks: StillNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, *inputs: Tensor) -> Tensor:
        planes = to_label_planes(inputs[1], self.networks.spec.classes) if len(inputs) > 1 else None
        return self.networks.encode(to_signed(inputs[0]), planes)


class ShippedStillGenerator(nn.Module):
    """``picture`` u8 (1, H, W, 3) of, in this order: ``symbols`` f32 (1, C, h, w) and ``present`` f32 (1, C, 1, 1),
    unless made of labels alone; ``keep`` f32 (1, 1, h, w) for SC; ``labels`` u8 (1, H, W) unless GC.

    The noise v of a model that has it is 0 here: its mean.
    """

    def __init__(self, networks: StillNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, *inputs: Tensor) -> Tensor:
        spec = self.networks.spec
        rest = list(inputs)
        symbols, present = (rest.pop(0), rest.pop(0)) if spec.task != "labels" else (None, None)
        keep = rest.pop(0) if spec.task == "sc" else None
        planes = to_label_planes(rest.pop(0), spec.classes) if spec.task != "gc" else None
        noise = None
        if spec.noise:
            grid = symbols[:, :1] if symbols is not None else nn.functional.avg_pool2d(planes[:, :1], 16)  # type: ignore[index]
            noise = torch.zeros_like(grid).expand(-1, spec.noise, -1, -1)
        if symbols is not None and present is not None:
            symbols = symbols * present
        picture = self.networks.decode(symbols, keep, present, planes, noise)
        return ((picture + 1) * 127.5 + 0.5).clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)

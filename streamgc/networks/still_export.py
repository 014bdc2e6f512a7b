"""The still networks as they are shipped: uint8 pictures and label maps in, uint8 pictures out.

Either E and one network for all that the receiver does, or E, the receiver head (the paper's SC), F and G apart: F then
runs once a label map, and each part gets an engine of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streamgc.networks.paper import PaperNetworks
from streamgc.networks.still import LiteNetworks
from streamgc.networks.still_spec import FreezableInstanceNorm, StillNetworks, StillSpec


def settle_normalisation(networks: StillNetworks) -> StillNetworks:
    """A copy whose norms are plain layers: instance norm, or batch norm with the gathered statistics where frozen.

    torch.export cannot follow a branch on a buffer, which is what "frozen" is.
    """
    settled = copy.deepcopy(networks).eval()
    for parent in list(settled.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FreezableInstanceNorm):
                setattr(parent, name, _plain_norm(child))
    return settled


def _plain_norm(norm: FreezableInstanceNorm) -> nn.Module:
    plain: nn.InstanceNorm2d | nn.BatchNorm2d
    if bool(norm.frozen):
        plain = nn.BatchNorm2d(norm.num_features, norm.eps)
        plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    else:
        plain = nn.InstanceNorm2d(norm.num_features, norm.eps, affine=True)
    plain.weight, plain.bias = norm.weight, norm.bias
    return plain.eval()


def to_signed(picture: Tensor) -> Tensor:
    """uint8 (1, H, W, 3) → float (1, 3, H, W) in [-1, 1]."""
    return picture.to(torch.float32).permute(0, 3, 1, 2) * (1 / 127.5) - 1


def to_label_planes(labels: Tensor, classes: int) -> Tensor:
    """uint8 (1, H, W) → one-hot classes and the edges between labels, float (1, K + 1, H, W)."""
    hot = (labels[:, None] == torch.arange(classes, dtype=torch.uint8)[None, :, None, None]).to(torch.float32)
    # An edge pixel differs from one of its four neighbours: then some class's neighbours do not agree with it.
    padded = nn.functional.pad(hot, (1, 1, 1, 1), mode="replicate")
    neighbours = (padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1])
    differs = (neighbours[0] - hot).abs()
    for shifted in neighbours[1:]:
        differs = torch.maximum(differs, (shifted - hot).abs())
    differs = differs.amax(1, keepdim=True)
    return torch.cat([hot, differs], 1)


def to_bytes(picture: Tensor) -> Tensor:
    """float (1, 3, H, W) in [-1, 1] → uint8 (1, H, W, 3), rounded."""
    return ((picture + 1) * 127.5 + 0.5).clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)


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
        symbols, keep, present, labels = _in_order(spec, inputs)
        planes = to_label_planes(labels, spec.classes) if labels is not None else None
        noise = None
        if spec.noise:
            grid = symbols[:, :1] if symbols is not None else nn.functional.avg_pool2d(planes[:, :1], 16)  # type: ignore[index]
            noise = torch.zeros_like(grid).expand(-1, spec.noise, -1, -1)
        return to_bytes(self.networks.decode(symbols, keep, present, planes, noise))


class ShippedReceiver(nn.Module):
    """The receiver head of the paper's SC: ``symbols`` f32 (1, C, H/8, W/8), 0 where not kept, and ``present`` f32
    (1, C, 1, 1) → ``code`` f32 (1, 960, H/16, W/16)."""

    def __init__(self, networks: PaperNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, symbols: Tensor, present: Tensor) -> Tensor:
        code: Tensor = self.networks.generator.receive(_with_noise(symbols * present, self.networks.spec.noise))
        return code


class ShippedFeatures(nn.Module):
    """F: ``labels`` u8 (1, H, W) → ``features`` f32 (1, 960, H/16, W/16) of the paper, 96 channels of lite."""

    def __init__(self, networks: StillNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, labels: Tensor) -> Tensor:
        planes = to_label_planes(labels, self.networks.spec.classes)
        if isinstance(self.networks, PaperNetworks):
            features: Tensor = self.networks.features(planes)
        else:
            features = self.networks.generator.label_features(planes)  # type: ignore[operator,union-attr]
        return features


class ShippedLiteSynthesis(nn.Module):
    """G of the lite family alone → ``picture`` u8 (1, H, W, 3).

    Of ``symbols``, ``present`` and, for SC, ``keep``, unless made of labels alone; then ``features`` unless GC.
    """

    def __init__(self, networks: LiteNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, *inputs: Tensor) -> Tensor:
        spec = self.networks.spec
        symbols, keep, present, features = _in_order(spec, inputs)
        noise = None
        if spec.noise:
            grid = symbols if symbols is not None else features
            noise = torch.zeros_like(grid[:, :1]).expand(-1, spec.noise, -1, -1)  # type: ignore[index]
        return to_bytes(self.networks.synthesise(symbols, keep, present, features, noise))


class ShippedSynthesis(nn.Module):
    """G of the paper alone → ``picture`` u8 (1, H, W, 3). Of ``symbols`` and ``present`` for GC, ``code`` and
    ``features`` for SC, ``features`` for labels alone."""

    def __init__(self, networks: PaperNetworks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, *inputs: Tensor) -> Tensor:
        spec = self.networks.spec
        if spec.task == "sc":
            joined = torch.cat(inputs, 1)
        else:
            joined = _with_noise(inputs[0] * inputs[1] if spec.task == "gc" else inputs[0], spec.noise)
        return to_bytes(self.networks.generator.body(joined))


def _in_order(
    spec: StillSpec, inputs: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """``symbols`` (absent channels 0), ``keep``, ``present``, what is made of labels; None for what a task lacks."""
    rest = list(inputs)
    symbols, present = (rest.pop(0), rest.pop(0)) if spec.task != "labels" else (None, None)
    keep = rest.pop(0) if spec.task == "sc" else None
    if symbols is not None and present is not None:
        symbols = symbols * present
    return symbols, keep, present, rest.pop(0) if spec.task != "gc" else None


def _with_noise(code: Tensor, noise: int) -> Tensor:
    """z = [ŵ, v] with v at its mean, 0."""
    return torch.cat([code, torch.zeros_like(code[:, :1]).expand(-1, noise, -1, -1)], 1) if noise else code

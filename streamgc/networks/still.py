"""The lite still family: GC, SC and label-only at a few GFLOP for 256², without normalisation layers.

    x (and s at /4) ─▶ pixel-unshuffle 4 ─▶ /8 ─▶ /16 ─▶ 2.4·tanh ─q─▶ ŵ (C × H/16)
    ŵ, which channels are there, m, F(s at /4) ─▶ G: residual blocks at /16, /8, /4 ─▶ pixel-shuffle 4 ─▶ tanh ─▶ x̂

Codes are nested: training drops the later channels at random, and G is told which are there. Both the GC and the SC
code live at /16. Beside the blocks runs a linear path, 16×16 pixels to a cell and 3×3 cells to 16×16 pixels:
``training/still_start.py`` sets it to the best linear codec in closed form, so that the blocks only learn what that
lacks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.networks.lite import LATENT_MAX, Residual
from streamgc.networks.still_spec import StillNetworks, StillSpec

ENCODER_WIDTHS = (32, 64, 128)
GENERATOR_WIDTHS = (160, 80, 40)
LABEL_WIDTH = 48
COARSE_BLOCKS = 5


def smooth_shuffle(convolution: nn.Conv2d, factor: int) -> None:
    """Start a convolution before a pixel-shuffle as bilinear interpolation (3×3) or repetition (1×1).

    With a start of its own for every sub-pixel the pictures carry a grid that takes thousands of steps to unlearn.
    """
    kernel, outputs = convolution.kernel_size[0], convolution.out_channels // factor**2
    offsets = (torch.arange(factor) + 0.5) / factor - 0.5
    taps = (torch.arange(kernel) - kernel // 2).float()
    along = (1 - (offsets[:, None] - taps[None]).abs()).clamp(min=0) if kernel > 1 else torch.ones(factor, 1)
    with torch.no_grad():
        mixed = convolution.weight[:: factor**2].sum((2, 3)) * (kernel if kernel > 1 else 1) ** -1
        spread = torch.einsum("oi,ry,sx->orsiyx", mixed, along, along)
        convolution.weight.copy_(spread.reshape(outputs * factor**2, -1, kernel, kernel))
        if convolution.bias is not None:
            convolution.bias.copy_(convolution.bias[:: factor**2].repeat_interleave(factor**2))


def _scaled(widths: tuple[int, ...], width: float) -> list[int]:
    return [max(4, round(value * width)) for value in widths]


class Encoder(nn.Module):
    """E: picture and label planes to the latent."""

    def __init__(self, spec: StillSpec) -> None:
        super().__init__()
        w4, w8, w16 = _scaled(ENCODER_WIDTHS, spec.width)
        self.body = nn.Sequential(
            nn.Conv2d(48 + spec.planes, w4, 3, padding=1),
            Residual(w4),
            nn.Conv2d(w4, w8, 3, stride=2, padding=1),
            Residual(w8),
            nn.Conv2d(w8, w16, 3, stride=2, padding=1),
            Residual(w16),
            Residual(w16),
            nn.LeakyReLU(0.1),
        )
        self.last = nn.Conv2d(w16, spec.channels, 3, padding=1)
        self.linear = nn.Conv2d(3, spec.channels, 16, stride=16)
        with torch.no_grad():
            self.last.weight.mul_(50)  # all five symbols from the first step

    def forward(self, picture: Tensor, planes: Tensor | None) -> Tensor:
        x = F.pixel_unshuffle(picture, 4)
        if planes is not None:
            x = torch.cat([x, F.avg_pool2d(planes, 4)], 1)
        return LATENT_MAX * torch.tanh((self.last(self.body(x)) + self.linear(picture)) / LATENT_MAX)


class Generator(nn.Module):
    """F and G: code, plane and labels to the picture."""

    def __init__(self, spec: StillSpec) -> None:
        super().__init__()
        w16, w8, w4 = _scaled(GENERATOR_WIDTHS, spec.width)
        inputs = spec.noise
        if spec.task != "labels":
            inputs += 2 * spec.channels + (1 if spec.task == "sc" else 0)
        self.features: nn.Sequential | None = None
        if spec.planes:
            labels = max(4, round(LABEL_WIDTH * spec.width))
            self.features = nn.Sequential(
                nn.Conv2d(spec.planes, labels, 3, stride=2, padding=1),
                Residual(labels),
                nn.Conv2d(labels, 2 * labels, 3, stride=2, padding=1),
                Residual(2 * labels),
            )
            inputs += 2 * labels
        self.embed = nn.Conv2d(inputs, w16, 3, padding=1)
        self.body = nn.Sequential(
            *[Residual(w16) for _ in range(min(COARSE_BLOCKS, spec.blocks))],
            nn.Conv2d(w16, 4 * w8, 1),
            nn.PixelShuffle(2),
            Residual(w8),
            Residual(w8),
            nn.Conv2d(w8, 4 * w4, 1),
            nn.PixelShuffle(2),
            Residual(w4),
            Residual(w4),
            nn.LeakyReLU(0.1),
        )
        self.last = nn.Conv2d(w4, 48, 3, padding=1)
        self.linear = nn.Conv2d(spec.channels, 3 * 16**2, 3, padding=1) if spec.task != "labels" else None
        ups = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        for layer, factor in ((ups[0], 2), (ups[1], 2), (self.last, 4)):
            smooth_shuffle(layer, factor)
        if self.linear is not None:
            smooth_shuffle(self.linear, 16)

    def label_features(self, planes: Tensor) -> Tensor | None:
        """F(s) (B, ·, h, w) of label planes (B, K + 1, H, W); None for GC, which sees no labels."""
        return None if self.features is None else self.features(F.avg_pool2d(planes, 4))

    def forward(self, code: list[Tensor], features: Tensor | None) -> Tensor:
        parts = list(code)
        if features is not None:
            parts.append(features)
        x = F.pixel_shuffle(self.last(self.body(self.embed(torch.cat(parts, 1)))), 4)
        if self.linear is not None:
            x = x + F.pixel_shuffle(self.linear(code[0]), 16)
        return torch.tanh(x)


class LiteNetworks(StillNetworks):
    """The lite family behind the interface of `StillNetworks`; picture sides are multiples of 16."""

    def __init__(self, spec: StillSpec) -> None:
        super().__init__(spec)
        if spec.task != "labels":
            self.encoder = Encoder(spec)
        self.generator = Generator(spec)

    def encode(self, picture: Tensor, planes: Tensor | None) -> Tensor:
        latent: Tensor = self.encoder(picture, planes)
        return latent

    def decode(
        self,
        symbols: Tensor | None,
        keep: Tensor | None,
        present: Tensor | None,
        planes: Tensor | None,
        noise: Tensor | None = None,
    ) -> Tensor:
        features = None if planes is None else self.generator.label_features(planes)
        return self.synthesise(symbols, keep, present, features, noise)

    def synthesise(
        self,
        symbols: Tensor | None,
        keep: Tensor | None,
        present: Tensor | None,
        features: Tensor | None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """G alone: `decode` with F(s) in place of the label planes."""
        code: list[Tensor] = []
        if symbols is not None:
            there = symbols.new_ones(symbols.shape[0], symbols.shape[1], 1, 1) if present is None else present
            code += [symbols * there, there.to(symbols.dtype).expand_as(symbols)]
            if self.spec.task == "sc":
                code.append(symbols.new_ones(symbols[:, :1].shape) if keep is None else keep)
        if noise is not None:
            code.append(noise)
        picture: Tensor = self.generator(code, features)
        return picture

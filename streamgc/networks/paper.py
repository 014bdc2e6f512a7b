"""The paper family: E, F and G of Appendix E as they stand, for GC, SC and the label-only baseline.

    GC  x ─▶ c7s1-60 d120 d240 d480 d960 c3s1-C ─q─▶ ŵ (C × H/16) ─▶ G ─▶ x̂
    SC  x, s ─▶ c7s1-60 d120 d240 d480 c3s1-C ─q─▶ ŵ (C × H/8) · m ─▶ c3s1-480 d960 ─┐
        s ─▶ F: c7s1-60 d120 d240 d480 d960 ──────────────────────────────────── concat ─▶ G ─▶ x̂
    G   c3s1-960 R960 × 9 u480 u240 u120 u60 c7s1-3 tanh

Every convolution but the last of E and of G is followed by InstanceNorm and ReLU; padding is by reflection. A ReLU
before q would make -2 and -1 unreachable, so E ends in a plain convolution.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from streamgc.networks.still_spec import FreezableInstanceNorm, StillNetworks, StillSpec

BASE = 60
CODE_SPREAD = 1.2
"""Standard deviation of a fresh encoder's latent: wide enough that all five symbols occur from the first step."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.ReflectionPad2d(kernel // 2),
        nn.Conv2d(inputs, outputs, kernel, stride=stride),
        FreezableInstanceNorm(outputs),
        nn.ReLU(inplace=True),
    ]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1),
        FreezableInstanceNorm(outputs),
        nn.ReLU(inplace=True),
    ]


class ResidualBlock(nn.Module):
    """Rk: two 3×3 convolutions, the second without ReLU, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, channels, 3), *_convolution(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


def _widths(width: float) -> list[int]:
    """Channels at full size, /2, /4, /8 and /16: 60, 120, 240, 480, 960 times ``width``."""
    return [max(1, round(BASE * 2**level * width)) for level in range(5)]


def _downward(inputs: int, widths: list[int]) -> list[nn.Module]:
    """c7s1-60 and one d-layer for each further width."""
    layers = _convolution(inputs, widths[0], 7)
    for before, after in pairwise(widths):
        layers += _convolution(before, after, 3, stride=2)
    return layers


def _to_code(inputs: int, channels: int) -> list[nn.Module]:
    """c3s1-C before q, without norm or activation."""
    last = nn.Conv2d(inputs, channels, 3)
    # Its input is ReLU(InstanceNorm(…)), of mean square ½.
    nn.init.normal_(last.weight, std=CODE_SPREAD / math.sqrt(0.5 * 9 * inputs))
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return [nn.ReflectionPad2d(1), last]


class Generator(nn.Module):
    """G with what the receiver runs before it; its parameters are the 176 million of full-width SC."""

    def __init__(self, spec: StillSpec) -> None:
        super().__init__()
        widths = _widths(spec.width)
        self.receive = nn.Sequential()
        code = spec.channels + spec.noise
        if spec.task == "sc":
            self.receive = nn.Sequential(*_convolution(code, widths[3], 3), *_convolution(widths[3], widths[4], 3, 2))
            inputs = 2 * widths[4]
        else:
            inputs = code if spec.task == "gc" else widths[4] + spec.noise
        layers = _convolution(inputs, widths[4], 3)
        layers += [ResidualBlock(widths[4]) for _ in range(spec.blocks)]
        for before, after in pairwise(widths[::-1]):
            layers += _up(before, after)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(widths[0], 3, 7), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, code: Tensor | None, labels: Tensor | None) -> Tensor:
        """``code`` z = [ŵ, v]; ``labels`` F(s) (B, 960, H/16, W/16)."""
        parts = [] if code is None else [self.receive(code)]
        if labels is not None:
            parts.append(labels)
        picture: Tensor = self.body(torch.cat(parts, 1))
        return picture


class PaperNetworks(StillNetworks):
    """Appendix E. Picture sides are multiples of 16, at least 32 (InstanceNorm needs more than one cell)."""

    def __init__(self, spec: StillSpec) -> None:
        super().__init__(spec)
        widths = _widths(spec.width)
        if spec.task != "labels":
            depth = 4 if spec.task == "sc" else 5
            self.encoder = nn.Sequential(
                *_downward(3 + spec.planes, widths[:depth]), *_to_code(widths[depth - 1], spec.channels)
            )
        if spec.task != "gc":
            self.features = nn.Sequential(*_downward(spec.planes, widths))
        self.generator = Generator(spec)

    def encode(self, picture: Tensor, planes: Tensor | None) -> Tensor:
        latent: Tensor = self.encoder(picture if planes is None else torch.cat([picture, planes], 1))
        return latent

    def decode(
        self,
        symbols: Tensor | None,
        keep: Tensor | None,
        present: Tensor | None,
        planes: Tensor | None,
        noise: Tensor | None = None,
    ) -> Tensor:
        parts = [part for part in (symbols, noise) if part is not None]
        labels = None if planes is None else self.features(planes)
        if symbols is None and labels is not None:
            # No code: v, if any, joins F(s) at /16.
            parts, labels = [], torch.cat([labels, *parts], 1)
        picture: Tensor = self.generator(torch.cat(parts, 1) if parts else None, labels)
        return picture

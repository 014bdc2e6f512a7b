"""The lite networks as they are shipped: uint8 pictures (1, H, W, C) in and out; no caller scales or transposes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamgc.networks.lite import PLANES, Encoded, Encoder, Features, Generator, Reference


def to_planes(picture: Tensor) -> Tensor:
    """uint8 (1, H, W, C) → float (1, C, H, W) in [0, 1]."""
    return picture.to(torch.float32).permute(0, 3, 1, 2) * (1 / 255)


class ShippedEncoder(nn.Module):
    """``picture``, ``matte``, ``key`` uint8 → ``latent`` float (1, 8, h, w), ``attention`` float (1, 1, h, w) in
    0..1."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, picture: Tensor, matte: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        encoded: Encoded = self.encoder(to_planes(picture), to_planes(matte), to_planes(key))
        return encoded.latent, torch.sigmoid(encoded.attention)


class ShippedReference(nn.Module):
    """``key`` uint8 → ``f4``, ``f8``, ``f16``."""

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self.reference = reference

    def forward(self, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features: Features = self.reference(to_planes(key))
        return features.f4, features.f8, features.f16


class ShippedGenerator(nn.Module):
    """``symbols``, ``present``, ``plane``, ``key``, ``f4``, ``f8``, ``f16``, ``moved`` float (1, 2, H/8, W/8) →
    ``picture`` uint8 (1, H, W, 4) and ``flow`` float (1, 2, H/8, W/8), picture pixels (x, y): where in the key each
    place comes from."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        symbols: Tensor,
        present: Tensor,
        plane: Tensor,
        key: Tensor,
        f4: Tensor,
        f8: Tensor,
        f16: Tensor,
        moved: Tensor,
    ) -> tuple[Tensor, Tensor]:
        planes = torch.stack([(plane == value).to(torch.float32) for value in range(PLANES)], 1)
        made = self.generator(symbols, present, planes, to_planes(key), Features(f4, f8, f16), moved)
        out = torch.cat([made.picture, torch.sigmoid(made.alpha)], 1)
        return (out.clamp(0, 1) * 255 + 0.5).permute(0, 2, 3, 1).to(torch.uint8), made.flow

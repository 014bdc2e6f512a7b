"""The lite family: real time on two CPU cores. Encoder E, reference features, generator G of the call model.

    blanked picture x, matte, key ──▶ E ──▶ latent ──q──▶ ŵ (8 × H/16 × W/16, L = 5), attention (H/16 × W/16)
    key ──▶ Reference ──▶ f4, f8, f16                         (once a key)
    ŵ, plane, key, f4, f8, f16 ──▶ G ──▶ RGB + alpha

G first decodes a flow from ŵ and the key's features, warps the key and its features along it, then adds what the key
does not hold.
Pictures are float RGB in [0, 1] here; ``networks/lite_export.py`` wraps them with uint8 in and out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8
"""Channels of ŵ; nested, so that the first 2 or 4 alone are a valid code."""
CELL = 16
"""Picture pixels along the side of one cell of ŵ."""
LEVELS = 5
LATENT_MAX = 2.4
"""The latent's range is ±2.4: beyond the outer centres, so that ±2 are reached before saturation."""
NO_ATTENTION = -4.0
"""Where the attention's logits begin: hardly any cell is part of eyes or mouth."""
PLANES = 3
"""Values of the plane: 0 synthesised, 1 kept, 2 lost."""
WIDTH_4, WIDTH_8, WIDTH_16 = 32, 64, 160
FLOW_LIMIT = 48.0
"""Largest coarse motion between key and picture, in picture pixels."""
REST = 0.15
"""Flow below this, in picture pixels, is rest: what stands still is copied from the key, not resampled into blur."""


class Features(NamedTuple):
    """What G reads of a key: (B, 32, H/4, W/4), (B, 64, H/8, W/8), (B, 160, H/16, W/16)."""

    f4: Tensor
    f8: Tensor
    f16: Tensor


class Encoded(NamedTuple):
    """E's outputs: ``latent`` (B, 8, h, w) in ±2.4, and ``attention`` (B, 1, h, w), logits: to a face, and most
    to its eyes and mouth, of which the sender takes care first."""

    latent: Tensor
    attention: Tensor


class Generated(NamedTuple):
    """G's outputs.

    ``picture`` (B, 3, H, W) in about [0, 1]; ``alpha`` logits (B, 1, H, W); ``warped`` (B, 3, H, W) the key along the
    flow; ``flow`` (B, 2, H/8, W/8) in picture pixels (x, y): where in the key each pixel comes from.
    """

    picture: Tensor
    alpha: Tensor
    warped: Tensor
    flow: Tensor


def calm(convolution: nn.Conv2d) -> None:
    """Start a convolution at a tenth of its usual strength and without bias."""
    with torch.no_grad():
        convolution.weight.mul_(0.1)
        if convolution.bias is not None:
            convolution.bias.zero_()


class Residual(nn.Module):
    """Pre-activation block of two 3×3 convolutions, near identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        calm(self.second)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.1)), 0.1))
        return result


class Encoder(nn.Module):
    """E: what the key does not say about the picture, in 8 channels a cell; and where eyes and mouth are."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(7 * 16, WIDTH_4, 3, padding=1),
            Residual(WIDTH_4),
            nn.Conv2d(WIDTH_4, WIDTH_8, 3, stride=2, padding=1),
            Residual(WIDTH_8),
            nn.Conv2d(WIDTH_8, WIDTH_16, 3, stride=2, padding=1),
            Residual(WIDTH_16),
            Residual(WIDTH_16),
            nn.LeakyReLU(0.1),
            nn.Conv2d(WIDTH_16, channels, 3, padding=1),
        )
        self.attend = nn.Conv2d(WIDTH_16, 1, 3, padding=1)
        with torch.no_grad():
            self.attend.weight.zero_()
            assert self.attend.bias is not None
            self.attend.bias.fill_(NO_ATTENTION)

    def forward(self, picture: Tensor, matte: Tensor, key: Tensor) -> Encoded:
        """Of a blanked ``picture`` (B, 3, H, W), its ``matte`` (1 = kept), and ``key``."""
        seen = self.body[:-1](torch.cat([picture - 0.5, matte - 0.5, key - 0.5], 1))
        return Encoded(LATENT_MAX * torch.tanh(self.body[-1](seen) / LATENT_MAX), self.attend(seen))


class Reference(nn.Module):
    """The features of a key picture, computed once and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.to4 = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, WIDTH_4, 3, padding=1), Residual(WIDTH_4))
        self.to8 = nn.Sequential(nn.Conv2d(WIDTH_4, WIDTH_8, 3, stride=2, padding=1), Residual(WIDTH_8))
        self.to16 = nn.Sequential(nn.Conv2d(WIDTH_8, WIDTH_16, 3, stride=2, padding=1), Residual(WIDTH_16))

    def forward(self, key: Tensor) -> Features:
        f4 = self.to4(key - 0.5)
        f8 = self.to8(f4)
        return Features(f4, f8, self.to16(f8))


class Generator(nn.Module):
    """G: the picture from the code, the plane and one key."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2 * channels + PLANES + WIDTH_16 + 2, WIDTH_16, 3, padding=1)
        self.coarse = nn.Sequential(*[Residual(WIDTH_16) for _ in range(3)])
        self.flow16 = nn.Conv2d(WIDTH_16, 2, 3, padding=1)
        self.join16 = nn.Conv2d(2 * WIDTH_16, WIDTH_16, 1)
        self.last16 = Residual(WIDTH_16)
        self.up8 = nn.Sequential(nn.Conv2d(WIDTH_16, WIDTH_8 * 4, 1), nn.PixelShuffle(2))
        self.join8 = nn.Conv2d(2 * WIDTH_8, WIDTH_8, 3, padding=1)
        self.body8 = Residual(WIDTH_8)
        self.flow8 = nn.Conv2d(WIDTH_8, 2, 3, padding=1)
        self.rejoin8 = nn.Conv2d(2 * WIDTH_8, WIDTH_8, 1)
        self.last8 = Residual(WIDTH_8)
        self.up4 = nn.Sequential(nn.Conv2d(WIDTH_8, WIDTH_4 * 4, 1), nn.PixelShuffle(2))
        self.join4 = nn.Conv2d(2 * WIDTH_4, WIDTH_4, 3, padding=1)
        self.body4 = nn.Sequential(Residual(WIDTH_4), Residual(WIDTH_4))
        self.out = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(WIDTH_4, 5 * 16, 3, padding=1), nn.PixelShuffle(4))
        last = self.out[1]
        assert isinstance(last, nn.Conv2d)
        for head in (self.flow16, self.flow8, last):
            calm(head)

    def forward(
        self,
        symbols: Tensor,
        present: Tensor,
        plane: Tensor,
        key: Tensor,
        features: Features,
        moved: Tensor | None = None,
    ) -> Generated:
        """``symbols`` (B, 8, h, w) in [-2, 2]; ``present`` (B, 8, h, w) 1 = sent; ``plane`` one-hot (B, 3, h, w);
        ``moved`` (B, 2, 2h, 2w): the displacement at which the key and its features are seen, in picture pixels (x, y);
        None: as they are."""
        kept = plane[:, 1:2]
        code = torch.cat([symbols * kept * present, present, plane], 1)
        moved16 = None if moved is None else F.avg_pool2d(moved, 2)
        f16 = features.f16 if moved16 is None else self.align(features.f16, moved16, 16)
        # Where a head has come from, the key shows it once more.
        away = torch.zeros_like(f16[:, :2]) if moved16 is None else moved16 / FLOW_LIMIT
        x = self.embed(torch.cat([code, f16, away], 1))
        x = self.coarse(x)
        flow = FLOW_LIMIT * torch.tanh(self.flow16(x) / 4)
        x = self.last16(x + self.join16(torch.cat([x, self.align(features.f16, beyond(flow, moved16, 16), 16)], 1)))
        x = self.up8(x)
        flow = enlarged(flow, 2)
        x = x + self.join8(torch.cat([x, self.align(features.f8, beyond(flow, moved, 8), 8)], 1))
        x = self.body8(x)
        flow = flow + 4 * self.flow8(x)
        total = beyond(flow, moved, 8)
        x = self.last8(x + self.rejoin8(torch.cat([x, self.align(features.f8, total, 8)], 1)))
        x = self.up4(x)
        x = x + self.join4(torch.cat([x, self.align(features.f4, enlarged(total, 2), 4)], 1))
        out = self.out(self.body4(x))
        rested = F.softshrink(enlarged(flow, 8), REST)
        full = rested if moved is None else rested + enlarged(total - flow, 8)
        warped = self.align(key, full, 1, "bicubic")
        gate = torch.sigmoid(out[:, 4:5] + 2.0)
        picture = gate * warped + (1 - gate) * 0.5 + out[:, :3]
        return Generated(picture, out[:, 3:4], warped, total)

    def align(self, source: Tensor, flow: Tensor, stride: int, mode: str = "bilinear") -> Tensor:
        """The key, or its features, where the picture needs them; see `warp`."""
        return warp(source, flow, stride, mode)


def enlarged(flow: Tensor, times: int) -> Tensor:
    """A flow at more places."""
    return F.interpolate(flow, scale_factor=float(times), mode="bilinear", align_corners=False)


def beyond(flow: Tensor, moved: Tensor | None, stride: int) -> Tensor:
    """Where a ``flow`` leads in a source that is itself seen at a displacement: the two in a row; shapes and ``stride``
    as in `warp`."""
    return flow if moved is None else flow + warp(moved, flow, stride)


def warp(source: Tensor, flow: Tensor, stride: int, mode: str = "bilinear") -> Tensor:
    """Sample ``source`` (B, C, a, b) at each place plus ``flow`` (B, 2, a, b); beyond the edge, the edge is repeated.

    ``flow`` is in pixels of the full picture (x, y); ``stride`` is the picture pixels per pixel of ``source``.
    """
    height, width = source.shape[-2:]
    rows = torch.arange(height, device=source.device, dtype=torch.float32)
    columns = torch.arange(width, device=source.device, dtype=torch.float32)
    x = columns.view(1, 1, width) + flow[:, 0].float() / stride
    y = rows.view(1, height, 1) + flow[:, 1].float() / stride
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    sampled = F.grid_sample(source.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return sampled.to(source.dtype)


def quantise(latent: Tensor, hardness: float = 2.0) -> tuple[Tensor, Tensor]:
    """Differentiable q of the paper (eq. 2's soft assignment): hard symbols forward, soft gradient backward.

    Returns (symbols with the soft gradient, hard symbols), both of the latent's shape.
    """
    centres = torch.arange(-2, 3, device=latent.device, dtype=latent.dtype)
    hard = latent.detach().round().clamp(-2, 2)
    probabilities = torch.softmax(-hardness * (latent.unsqueeze(-1) - centres) ** 2, -1)
    soft = (probabilities * centres).sum(-1)
    return soft + (hard - soft).detach(), hard

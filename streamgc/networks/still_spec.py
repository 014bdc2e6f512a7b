"""What a still-image network is made for, and the interface that both families implement.

    x, s ──▶ encode ──▶ latent ──q──▶ ŵ (× m) ──▶ decode (with s, v) ──▶ x̂

Pictures are float RGB in [-1, 1]; label planes are one-hot classes plus one instance-edge plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from streamgc.networks.quantiser import quantise

Family = Literal["paper", "lite"]
Task = Literal["gc", "sc", "labels"]


@dataclass(frozen=True)
class StillSpec:
    """Sizes of one model.

    ``task``: gc codes the whole picture; sc codes what the heatmap keeps and synthesises the rest from labels; labels
    makes the picture from the labels alone (pix2pixHD). ``classes`` is K, 0 where E and G see no labels. ``width``
    multiplies every hidden channel count. ``noise`` is the number of channels of v.
    """

    family: Family = "lite"
    task: Task = "gc"
    channels: int = 8
    classes: int = 0
    width: float = 1.0
    noise: int = 0
    blocks: int = 9
    """Residual blocks of G at the coarsest scale (paper: 9)."""

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that no network can have."""
        if self.channels < 1 or self.width <= 0 or self.noise < 0 or self.blocks < 1:
            raise ValueError(f"channels, width and blocks must be positive: {self}")
        if self.task != "gc" and self.classes < 1:
            raise ValueError(f"task {self.task} needs labels: classes must be 1 or more")

    @property
    def cell(self) -> int:
        """Picture pixels a side of one cell of ŵ: 16, and 8 for the paper's SC."""
        return 8 if self.family == "paper" and self.task == "sc" else 16

    @property
    def multiple(self) -> int:
        """Picture sides must be multiples of this."""
        return 16

    @property
    def planes(self) -> int:
        """Label planes E and G see: K + 1 for the instance edges, 0 without labels."""
        return 0 if self.task == "gc" else self.classes + 1


class StillOutput(NamedTuple):
    """One pass: ``picture`` (B, 3, H, W) in [-1, 1]; ``latent`` and hard ``symbols`` (B, C, h, w), None without E."""

    picture: Tensor
    latent: Tensor | None
    symbols: Tensor | None


class StillNetworks(nn.Module):
    """E, q, F and G of one model."""

    def __init__(self, spec: StillSpec) -> None:
        super().__init__()
        self.spec = spec

    def encode(self, picture: Tensor, planes: Tensor | None) -> Tensor:
        """Latent (B, C, h, w) before q of the whole ``picture`` and, for SC, the label ``planes`` (B, K + 1, H, W)."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def decode(
        self,
        symbols: Tensor | None,
        keep: Tensor | None,
        present: Tensor | None,
        planes: Tensor | None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Picture (B, 3, H, W) in [-1, 1].

        ``symbols`` (B, C, h, w), 0 where not kept or absent; ``keep`` (B, 1, h, w) 1 = kept (SC); ``present``
        (B, C, 1, 1) 1 = the channel was sent (None: all); ``noise`` (B, N, h, w).
        """
        raise TypeError(f"{type(self).__name__} has no generator")

    def forward(
        self,
        picture: Tensor,
        planes: Tensor | None = None,
        keep: Tensor | None = None,
        present: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> StillOutput:
        """Code and decode: q, then ŵ zeroed where ``keep`` is 0 and where a channel is absent."""
        if self.spec.task == "labels":
            return StillOutput(self.decode(None, None, None, planes, noise), None, None)
        latent = self.encode(picture, planes)
        symbols, hard = quantise(latent)
        if keep is not None:
            symbols, hard = symbols * keep, hard * keep
        if present is not None:
            symbols, hard = symbols * present, hard * present
        return StillOutput(self.decode(symbols, keep, present, planes, noise), latent, hard)

    def freeze_normalisation(self) -> None:
        """Use the gathered statistics from now on (a network without normalisation stays as it is)."""
        for module in self.modules():
            if isinstance(module, FreezableInstanceNorm):
                module.freeze()


class FreezableInstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm that gathers statistics while it trains and, once frozen, uses those instead of the picture's own.

    Freezing makes it a fixed scale and shift per channel: the paper freezes half way against colour shifts.
    """

    frozen: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    def freeze(self) -> None:
        self.frozen.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        if bool(self.frozen):
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        track = self.training
        return nn.functional.instance_norm(
            x,
            self.running_mean if track else None,
            self.running_var if track else None,
            self.weight,
            self.bias,
            True,
            0.1,
            self.eps,
        )


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)

"""The room that the receiver imagines: a picture from coarse labels and eight numbers of style.

A conditional Gaussian model of rooms, all of it linear: a mean room, what each label does to its surroundings, and
eight principal components of what is left (Tipping and Bishop 1999), which the style scales. Nothing in it needs
training by gradient, any standard normal style gives a plausible light and layout, and the picture is out of focus, as
a lens focused on the person would have it. A SPADE generator stood here first; `docs/results/room.md` says why it left.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.scene.labels import LABEL_COUNT, Label

STYLE = 8
"""Numbers of a style, standard normal."""
BASIS_SIDE = 32
"""Rows and columns of the mean room and of a component; they are stretched over the picture."""
PLANES = 2 * LABEL_COUNT
"""Planes of `label_planes`."""


def parameter_count(module: nn.Module) -> int:
    """Fitted numbers of a network, buffers included."""
    return sum(value.numel() for value in module.state_dict().values())


def one_hot(labels: Tensor) -> Tensor:
    """Ids (B, h, w) → float (B, 13, h, w). A person's cell counts as room, an id without a label as `other`."""
    planes = [(labels == label).to(torch.float32) for label in range(LABEL_COUNT)]
    planes[Label.ROOM] = planes[Label.ROOM] + planes[Label.PERSON]
    planes[Label.PERSON] = torch.zeros_like(planes[Label.PERSON])
    planes[Label.OTHER] = (labels >= Label.OTHER).to(torch.float32)
    return torch.stack(planes, 1)


def label_planes(labels: Tensor) -> Tensor:
    """Ids (B, h, w) → (B, 26, h, w): where each label is, and the same times the height, -1 (top) … 1 (bottom).

    The plane of `room` is empty: a room without things is the mean room.
    """
    there = one_hot(labels)
    there = torch.cat([torch.zeros_like(there[:, :1]), there[:, 1:]], 1)
    # A sum of ones instead of a range: the same in every runtime, for any size.
    ones = torch.ones_like(there[:, :1])
    down = (2 * ones.cumsum(2) - 1) / ones.sum(2, keepdim=True) - 1
    return torch.cat([there, there * down], 1)


class RoomGenerator(nn.Module):
    """Labels u8 (B, h, w) and style (B, 8, 1, 1) → picture (B, 3, 4h, 4w), about 0 … 1, a quarter of the shown size.

    ``basis`` (9, 3, 32, 32) is the mean room and its components, each with the standard deviation it has in rooms.
    """

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", torch.zeros(1 + STYLE, 3, BASIS_SIDE, BASIS_SIDE))
        self.things = nn.Conv2d(PLANES, 3, 3, padding=1, bias=False)

    def forward(self, labels: Tensor, style: Tensor) -> Tensor:
        rows, columns = labels.shape[-2:]
        # No matrix product: TensorRT has none in fp32 for Turing.
        parts = style.reshape(-1, STYLE, 1) * self.basis[1:].reshape(1, STYLE, -1)
        drawn = parts.sum(1).reshape(-1, 3, BASIS_SIDE, BASIS_SIDE)
        room = F.interpolate(self.basis[:1] + drawn, size=(4 * rows, 4 * columns), mode="bilinear", align_corners=False)
        things = F.interpolate(
            self.things(label_planes(labels)), scale_factor=4.0, mode="bilinear", align_corners=False
        )
        return room + things


class ShippedRoom(nn.Module):
    """``labels`` u8 (1, h, w) and ``seed`` f32 (1, 8, 1, 1) → ``picture`` u8 (1, 16h, 16w, 3)."""

    def __init__(self, generator: RoomGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, labels: Tensor, seed: Tensor) -> Tensor:
        small = self.generator(labels, seed)
        # Twice by two is smoother than once by four.
        half = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
        picture = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        return (picture.clamp(0, 1) * 255 + 0.5).permute(0, 2, 3, 1).to(torch.uint8)

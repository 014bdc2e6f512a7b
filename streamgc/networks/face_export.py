"""The face's networks as they are shipped: uint8 pictures (1, H, W, 3) in; no caller scales or transposes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamgc.networks.face import FaceEncoder, FaceLocator, FacePainter, Measured, from_code, to_code
from streamgc.networks.lite_export import to_planes
from streamgc.pipeline.face import NO_CHANGE


class ShippedLocator(nn.Module):
    """``picture`` uint8 (1, H, W, 3) → ``places`` float (1, 5, H/8, W/8), see `FaceLocator`."""

    def __init__(self, locator: FaceLocator) -> None:
        super().__init__()
        self.locator = locator

    def forward(self, picture: Tensor) -> Tensor:
        places: Tensor = self.locator(to_planes(picture))
        return places


class ShippedReader(nn.Module):
    """``face`` uint8 (1, 120, 120, 3) → ``numbers`` float (1, 6), unrounded, see `to_code`, and ``centres`` (1, 3, 2)
    of the eyes in the left and the right and of the mouth, (x, y) in pixels of the face."""

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        measured: Measured = self.encoder(to_planes(face))
        return to_code(measured.numbers), measured.centres


class ShippedPainter(nn.Module):
    """``face`` uint8 (1, 120, 120, 3), ``numbers`` float (1, 6) → ``change`` uint8 (1, 120, 120, 3): grey levels to
    add to the face, plus 128."""

    def __init__(self, painter: FacePainter) -> None:
        super().__init__()
        self.painter = painter

    def forward(self, face: Tensor, numbers: Tensor) -> Tensor:
        planes = to_planes(face)
        change = self.painter(planes, from_code(numbers)) - planes
        levels: Tensor = (change * 255 + NO_CHANGE + 0.5).clamp(0, 255)
        return levels.permute(0, 2, 3, 1).to(torch.uint8)

"""The face's networks: where a face is, what its eyes and mouth do, and how a picture of it changes to do the same.

    blanked picture ──▶ FaceLocator ──▶ where faces are
    face as sent ──▶ FaceEncoder ──▶ six numbers, ──q──▶ integers in -4..4
    face as G shows it, these numbers ──▶ FacePainter ──▶ the face as sent

A face is cut out as `pipeline/face.py` does it: upright, 120 × 120 pixels, 48 between the eyes. The numbers say what
eyes and mouth do, not how they differ from something: a key that changes leaves them as they are. The painter measures
what the shown face does with the same network, and bends the picture by the difference: irises are shifted, lids and
lips opened or closed. It draws nothing that G has not drawn, so a face stays the one that it is; only between lips that
part widely it gets dark.
Pictures are float RGB in [0, 1]; ``networks/face_export.py`` wraps them with uint8 in and out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamgc.codec.face import FACE_SYMBOLS
from streamgc.networks.lite import Residual, calm, warp
from streamgc.pipeline.face import EYES_APART, FACE_SIDE
from streamgc.pipeline.faces import PLACE_SIDE

NUMBERS = ("gaze", "gaze down", "left lids", "right lids", "lips", "mouth")
"""What is measured: how far the irises are to the right and down; how far the lids of the eye in the left of the
picture and of the other are apart, how far the lips; how wide the mouth is. Of the lids, their mean and half of their
difference are coded: eyes seldom blink apart."""
STEPS = (0.03, 0.025, 0.16, 0.16, 0.18, 0.08)
"""What a step of each is: of gaze in distances of the eyes, of the others in the logarithm of the size."""
NUMBER_MAX = 4.4
"""Range of the latent: beyond the outer integers, so that ±4 are reached before saturation."""
IRIS, LIDS, LIPS = (0.16, 0.10), (0.25, 0.14), (0.45, 0.28)
"""Over which part of the distance of the eyes a bend fades to 1 / e, along the line of the eyes and across it."""
MOST = (0.10, 0.05, 0.95, 0.95, 0.8, 0.35)
"""How far at most a shown face is bent, in the units of `STEPS`: places keep their order."""
IDLE, SURE = 0.6, 1.6
"""Differences in steps: the first may be what rounding and measuring leave, and is not painted; the second is,
whole."""
USUAL = (0.0, 0.0, -2.08, -2.08, -1.1, -0.18)
"""Logarithm of the sizes that the numbers call 0, in distances of the eyes: medians of the training faces."""
SOFTENED = (0.0, 0.0, 0.01, 0.01, 0.02, 0.0)
"""Added to sizes: of lids that are closed the logarithm says too much."""
STRETCHED = 0.35
"""Up to this change of the logarithm of their height lips are stretched, which is most of what speech does; what is
beyond it parts them, since stretched further they get thick."""
LIPS_ALONE = 0.36
"""Height of lips, in distances of the eyes, from which on something is to be seen between them."""
CORNERS = 0.92
"""Share of a mouth's width that opens."""
LOWER_LIP = 0.3
"""Of what opens, the lower lip takes 1 + 0.3 halves, the upper one 1 - 0.3."""
CHIN = 0.35
"""Over which part of the eyes' distance beyond the lips their move fades to 1 / e."""
LEAST_GAP = 0.03
"""Half of the least height, in distances of the eyes, over which what closes is pressed together."""
DARK, DEEP = 0.45, 0.1
"""By which share it is darker between lips that have parted by so many distances of the eyes and more."""
LINE_DARKNESS, LINE_REACH = 60.0, 0.1
"""How much more a place that is darker is taken for the line between the lips, by the light in 0..1; and how far in
distances of the eyes that line usually is from the mouth's middle."""
CENTRES = ((36.0, 36.0), (84.0, 36.0), (60.0, 88.0))
"""Where eyes and mouth usually are in a face, (x, y)."""
CENTRE_SCALE = 8.0
"""Pixels that the encoder's measure of their places calls 1."""
GRID = 5
"""Places along the side of the coarsest grid."""
PLACES = 5
"""What the locator says of a place: whether a face is there, its middle's x and y, distance of the eyes, turn."""
NOWHERE = -4.0
"""Where the locator's logits begin: hardly any place has a face."""


class FaceLocator(nn.Module):
    """Faces in a blanked picture."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.PixelUnshuffle(PLACE_SIDE), nn.Conv2d(3 * PLACE_SIDE**2, 32, 3, padding=1), Residual(32)
        )
        self.middle = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), Residual(64))
        self.coarse = nn.Sequential(
            nn.Conv2d(64, 96, 3, stride=2, padding=1), Residual(96), Residual(96), nn.Conv2d(96, 64 * 4, 1)
        )
        self.shuffle = nn.PixelShuffle(2)
        self.up = nn.Sequential(Residual(64), nn.Conv2d(64, 32 * 4, 1), nn.PixelShuffle(2))
        self.last = nn.Sequential(Residual(32), nn.LeakyReLU(0.1), nn.Conv2d(32, PLACES, 3, padding=1))
        head = self.last[-1]
        assert isinstance(head, nn.Conv2d)
        calm(head)
        with torch.no_grad():
            assert head.bias is not None
            head.bias[0] = NOWHERE

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 5, H/8, W/8): logit that the middle of a face's eyes is in this place; from the place's
        centre to it, x and y, in places; logarithm of the eyes' distance over 32 pixels; the turn in radians."""
        fine = self.fine(picture - 0.5)
        middle = self.middle(fine)
        # Halves of odd sides are rounded up; what is enlarged from them again is cut.
        middle = middle + self.shuffle(self.coarse(middle))[..., : middle.shape[-2], : middle.shape[-1]]
        out: Tensor = self.last(fine + self.up(middle))
        return out


class Measured(NamedTuple):
    """What the encoder says of faces."""

    numbers: Tensor
    """(B, 6) in ±4.4, in steps."""
    centres: Tensor
    """(B, 3, 2): where left eye, right eye and mouth are, (x, y) in pixels of the face."""


class FaceEncoder(nn.Module):
    """What eyes and mouth do, and where in the face they are."""

    usual: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 32, 3, padding=1),
            Residual(32),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            Residual(64),
            Residual(64),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 96, 3, stride=3),
            nn.LeakyReLU(0.1),
            # Convolutions over all there is: TensorRT has no matrix products in fp32 for Turing.
            nn.Conv2d(96, 128, GRID),
            nn.LeakyReLU(0.1),
            nn.Conv2d(128, FACE_SYMBOLS + 6, 1),
            nn.Flatten(),
        )
        self.register_buffer("usual", torch.tensor(CENTRES), persistent=False)

    def forward(self, face: Tensor) -> Measured:
        """Of faces (B, 3, 120, 120)."""
        out = self.body(face - 0.5)
        numbers = NUMBER_MAX * torch.tanh(out[:, :FACE_SYMBOLS] / NUMBER_MAX)
        return Measured(numbers, self.usual + CENTRE_SCALE * out[:, FACE_SYMBOLS:].view(-1, 3, 2))


class FacePainter(nn.Module):
    """A face whose eyes and mouth do what the numbers say."""

    steps: Tensor
    most: Tensor
    others: Tensor

    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("steps", torch.tensor(STEPS), persistent=False)
        self.register_buffer("most", torch.tensor(MOST), persistent=False)
        self.register_buffer("others", torch.tensor([1.0, 1, 1, 1, 0, 1]), persistent=False)  # all but the lips

    def forward(self, face: Tensor, numbers: Tensor) -> Tensor:
        """``face`` (B, 3, 120, 120) as it is shown, ``numbers`` (B, 6) in -4..4 → the face (B, 3, 120, 120)."""
        shown: Measured = self.encoder(face)
        apart = numbers - shown.numbers
        by = torch.sign(apart) * torch.minimum(apart.abs(), F.relu(apart.abs() - IDLE) * (SURE / (SURE - IDLE)))
        by = by * self.steps
        by = torch.minimum(torch.maximum(by, -self.most), self.most)
        mouth = opened(face, by[:, 4], shown)
        flow = bend(by * self.others, shown.centres)
        flow = flow + torch.stack([torch.zeros_like(mouth.down), EYES_APART * mouth.down], 1)
        return warp(face, flow, 1, "bicubic") * (1 - mouth.dark[:, None])


def to_code(numbers: Tensor) -> Tensor:
    """`NUMBERS` (B, 6) as they are coded."""
    left, right = numbers[:, 2:3], numbers[:, 3:4]
    return torch.cat([numbers[:, :2], (left + right) / 2, (left - right) / 2, numbers[:, 4:]], 1)


def from_code(numbers: Tensor) -> Tensor:
    """What `to_code` made back to `NUMBERS`."""
    both, apart = numbers[:, 2:3], numbers[:, 3:4]
    return torch.cat([numbers[:, :2], both + apart, both - apart, numbers[:, 4:]], 1)


def bend(by: Tensor, centres: Tensor) -> Tensor:
    """From where each place of a face is taken so that eyes and mouth change ``by`` (B, 6), in the units of `STEPS`:
    (B, 2, 120, 120), x and y in pixels. ``centres`` (B, 3, 2) as in `Measured`."""
    line = (torch.arange(FACE_SIDE, device=by.device, dtype=by.dtype) + 0.5) / EYES_APART
    x, y = line.view(1, 1, -1), line.view(1, -1, 1)
    along = torch.zeros(1, 1, 1, device=by.device, dtype=by.dtype)
    down = along
    for eye in range(2):
        u, v = (x - centres[:, eye, 0, None, None] / EYES_APART), (y - centres[:, eye, 1, None, None] / EYES_APART)
        iris, lids = _fading(u, v, IRIS), _fading(u, v, LIDS)
        along = along - by[:, 0, None, None] * iris
        down = down - by[:, 1, None, None] * iris + v * (torch.exp(-by[:, 2 + eye, None, None]) - 1) * lids
    u, v = (x - centres[:, 2, 0, None, None] / EYES_APART), (y - centres[:, 2, 1, None, None] / EYES_APART)
    lips = _fading(u, v, LIPS)
    along = along + u * (torch.exp(-by[:, 5, None, None]) - 1) * lips
    down = down + v * (torch.exp(-by[:, 4, None, None]) - 1) * lips
    return EYES_APART * torch.stack([along, down], 1)


class Opened(NamedTuple):
    """A mouth that opens or closes."""

    down: Tensor
    """(B, 120, 120): how far below itself each place is taken from, in distances of the eyes."""
    dark: Tensor
    """(B, 120, 120): by which share it gets darker."""


def opened(face: Tensor, by: Tensor, shown: Measured) -> Opened:
    """How a ``face`` (B, 3, 120, 120) changes whose lips are to be higher by ``by`` (B,), in the logarithm.

    First they are stretched, or pressed, as by `bend`. What is more parts them as they are, the lower one further: each
    place of the gap is taken from the line between the lips, or, where a mouth was open, from what was seen there.
    """
    stretched = by.clamp(max=STRETCHED)[:, None, None]
    parted = by[:, None, None] - stretched
    high = torch.exp(USUAL[4] + STEPS[4] * shown.numbers[:, 4, None, None]) - SOFTENED[4]
    high = high.clamp(min=0) * torch.exp(stretched)
    wide = torch.exp(USUAL[5] + STEPS[5] * shown.numbers[:, 5, None, None])
    line = (torch.arange(FACE_SIDE, device=by.device, dtype=by.dtype) + 0.5) / EYES_APART
    between = _between_lips(face, shown.centres)[:, None, None]
    u = line.view(1, 1, -1) - shown.centres[:, 2, 0, None, None] / EYES_APART
    v = line.view(1, -1, 1) - shown.centres[:, 2, 1, None, None] / EYES_APART - between
    arch = F.relu(1 - (2 * u / (CORNERS * wide)) ** 2)
    more = high * (torch.exp(parted) - 1) / 2 * arch
    seen = F.relu(high - LIPS_ALONE) / 2 * arch
    gap = (seen + more).clamp(min=LEAST_GAP)
    within = (v - LOWER_LIP * more) / gap
    beyond = F.relu((v - LOWER_LIP * more).abs() - gap)
    down = -torch.exp(-((beyond / CHIN) ** 2)) * more * (within.clamp(-1, 1) + LOWER_LIP)
    from_middle = v + down + between
    down = down + from_middle * (torch.exp(-stretched) - 1) * _fading(u, from_middle, LIPS)
    inside = (2 * (1 - within.abs())).clamp(0, 1)
    return Opened(down, DARK * inside * (more / DEEP).clamp(0, 1) * (more / gap).clamp(0, 1))


def _between_lips(face: Tensor, centres: Tensor) -> Tensor:
    """How far below a mouth's middle the line between its lips is, (B,), in distances of the eyes: what is darkest."""
    steps = 0.02 * torch.arange(-7, 8, device=face.device, dtype=face.dtype)
    across = 0.05 * torch.arange(-2, 3, device=face.device, dtype=face.dtype)
    x = (centres[:, 2, 0, None, None] + EYES_APART * across).expand(-1, len(steps), -1)
    y = (centres[:, 2, 1, None, None] + EYES_APART * steps[:, None]).expand(-1, -1, len(across))
    grid = torch.stack([x, y], -1) * (2 / FACE_SIDE) - 1
    light = F.grid_sample(face, grid, mode="bilinear", padding_mode="border", align_corners=False).mean((1, 3))
    weight = torch.softmax(-LINE_DARKNESS * light - (steps / LINE_REACH) ** 2, 1)
    return (weight * steps).sum(1)


def _fading(u: Tensor, v: Tensor, over: tuple[float, float]) -> Tensor:
    return torch.exp(-((u / over[0]) ** 2) - (v / over[1]) ** 2)

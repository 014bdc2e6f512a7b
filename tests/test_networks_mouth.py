"""A mouth that opens in a picture: stretched a little, parted when it opens wide."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from streamgc.networks.face import (
    CENTRES,
    SOFTENED,
    STEPS,
    STRETCHED,
    USUAL,
    FaceEncoder,
    FacePainter,
    Measured,
    bend,
    opened,
)
from streamgc.networks.lite import warp
from streamgc.pipeline.face import EYES_APART, FACE_SIDE

SKIN, LIPS, LINE, TEETH = 0.7, 0.45, 0.15, 0.95
MIDDLE = 88
pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(high: float = 12.0, line_at: float = -1.0, teeth: float = 0.0) -> Tensor:
    """A mouth of lips ``high`` pixels high with a dark line between them, or ``teeth`` pixels of teeth."""
    y = torch.arange(FACE_SIDE)[:, None] + 0.5 - MIDDLE
    x = torch.arange(FACE_SIDE)[None] + 0.5 - 60
    face = torch.full((FACE_SIDE, FACE_SIDE), SKIN)
    lips = torch.sigmoid(10 * (1 - (x / 21) ** 2 - (2 * y / high) ** 2))
    face = face * (1 - lips) + LIPS * lips
    line = torch.sigmoid(6 * (1.2 - (y - line_at).abs())) * (x.abs() < 18)
    face = face * (1 - line) + LINE * line
    if teeth:
        face = torch.where((y.abs() < teeth / 2) & (x.abs() < 14), torch.tensor(TEETH), face)
    return face.expand(1, 3, -1, -1)


def shown(high: float = 12.0) -> Measured:
    numbers = torch.zeros(1, 6)
    numbers[0, 4] = (math.log(high / EYES_APART + SOFTENED[4]) - USUAL[4]) / STEPS[4]
    return Measured(numbers, torch.tensor([CENTRES]))


def made(face: Tensor, by: float, seen: Measured) -> Tensor:
    class Reads(FaceEncoder):
        def forward(self, face: Tensor) -> Measured:
            return seen

    numbers = seen.numbers.clone()
    numbers[0, 4] += by / STEPS[4]
    painted: Tensor = FacePainter(Reads())(face, numbers)
    return painted


def column(picture: Tensor) -> Tensor:
    """What is seen down the middle of the mouth."""
    return picture[0, 0, MIDDLE - 30 : MIDDLE + 30, 60]


def test_a_little_is_a_stretch_and_nothing_gets_dark() -> None:
    face, seen = drawn(), shown()
    amounts = torch.zeros(1, 6)
    amounts[0, 4] = 0.9 * STRETCHED
    mouth = opened(face, amounts[:, 4], seen)
    assert mouth.dark.abs().max() == 0
    assert (EYES_APART * mouth.down - bend(amounts, seen.centres)[:, 1]).abs().max() < 1e-4


def test_lips_that_open_wide_stay_as_they_are_and_it_is_dark_between_them() -> None:
    face, seen = drawn(), shown()
    amounts = torch.zeros(1, 6)
    amounts[0, 4] = 0.8
    wide, stretched = column(made(face, 0.8, seen)), column(warp(face, bend(amounts, seen.centres), 1, "bicubic"))

    def dark(seen: Tensor) -> int:
        return int((seen < 0.25).sum())

    def lips(seen: Tensor) -> int:
        return int(((seen > 0.35) & (seen < 0.55)).sum())

    assert dark(column(face)) <= 3
    assert dark(wide) >= 2 * dark(stretched)
    assert lips(wide) < 0.8 * lips(stretched)
    assert lips(wide) + dark(wide) > 1.5 * (lips(column(face)) + dark(column(face)))
    rows = torch.nonzero(wide < 0.55)[:, 0]
    before = torch.nonzero(column(face) < 0.55)[:, 0]
    assert rows[-1] - before[-1] > before[0] - rows[0] > 0  # the lower lip goes further


def test_lips_are_parted_where_the_line_between_them_is() -> None:
    for line_at in (-3.0, 2.0):
        wide = column(made(drawn(14.0, line_at), 0.8, shown(14.0)))
        rows = torch.nonzero(wide < 0.25)[:, 0].float()
        assert len(rows) >= 4
        above = torch.nonzero(wide[: int(rows[0])] < 0.55)[:, 0]
        below = torch.nonzero(wide[int(rows[-1]) + 1 :] < 0.55)[:, 0]
        thicker = len(below) > len(above) if line_at < 0 else len(above) > len(below)
        assert thicker


def test_what_was_seen_in_an_open_mouth_stays_to_be_seen() -> None:
    face, seen = drawn(26.0, teeth=8.0), shown(26.0)
    wide = column(made(face, 0.6, seen))
    assert (wide > 0.8).sum() >= 4
    assert (wide > 0.8).sum() <= 2 * (column(face) > 0.8).sum()


def test_a_mouth_that_closes_gets_lower_and_not_dark() -> None:
    face, seen = drawn(26.0, teeth=8.0), shown(26.0)
    closed = made(face, -0.6, seen)
    assert opened(face, torch.tensor([-0.6]), seen).dark.abs().max() == 0
    lips, were = (((one[0, 0] - SKIN).abs() > 0.1).sum() for one in (closed, face))
    assert lips < 0.8 * were
    assert (closed - face)[..., :60, :].abs().max() < 0.02

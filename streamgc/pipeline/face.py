"""The face in a picture: where it is, cut out upright and at one size, and changes painted back.

Eyes and mouth of a small face are a cell or two of the code; cut out so that the eyes are always `EYES_APART` pixels
apart, networks see them at the size at which they were taught (`networks/face.py`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.codec.face import FACE_STEP, LARGEST_TURN, SIZES, FacePose
from streamgc.pipeline.settings import BLANK

Picture = NDArray[np.uint8]
FACE_SIDE = 120
"""Pixels along the side of a cut-out face."""
EYES_APART = 48.0
"""Pixels between the eyes in it."""
MIDDLE = (60.0, 36.0)
"""Where the middle of the eyes is in it, (x, y): from the brows to below the chin, and the cheeks."""
NO_CHANGE = 128
"""Level of a change that changes nothing."""
SIZE_STEP, LEAST_SIZE = math.log(1.03), 8.0
"""A pose's sizes are 3 % apart; the least has so many pixels between the eyes."""
TURN_STEP = math.radians(2)


class Place(NamedTuple):
    """Where a face is, in pixels of the picture; the centre of the upper left pixel is (0.5, 0.5)."""

    x: float
    """Middle of the eyes."""
    y: float
    distance: float
    """Between the eyes."""
    turn: float
    """Radians, clockwise: the right eye of the picture lies lower."""


def place_of(left: NDArray[np.floating], right: NDArray[np.floating]) -> Place:
    """Of the centres (x, y) of the eyes in the left and the right of the picture, counted from the centre of the upper
    left pixel, as landmarks are."""
    across = right - left
    middle = (left + right) / 2 + 0.5
    return Place(
        float(middle[0]), float(middle[1]), float(np.hypot(*across)), math.atan2(float(across[1]), float(across[0]))
    )


def place_within(place: Place, left: NDArray[np.floating], right: NDArray[np.floating]) -> Place:
    """Where a face is whose eyes' centres are at ``left`` and ``right``, (x, y), in what was cut out at a place."""
    scale = place.distance / EYES_APART
    along, across = scale * math.cos(place.turn), scale * math.sin(place.turn)
    (u, v), (width, height) = (left + right) / 2 - np.array(MIDDLE), right - left
    x, y = place.x + along * u - across * v, place.y + across * u + along * v
    distance = max(1.0, float(scale * np.hypot(width, height)))
    return Place(float(x), float(y), distance, place.turn + math.atan2(height, width))


def pose_of(place: Place, height: int, width: int) -> FacePose:
    """The pose nearest to a place in a picture of this size."""
    x, y = (
        min(max(0, round(at / FACE_STEP)), side // FACE_STEP - 1) for at, side in ((place.x, width), (place.y, height))
    )
    size = round(math.log(place.distance / LEAST_SIZE) / SIZE_STEP)
    turn = round(place.turn / TURN_STEP)
    return FacePose(x, y, min(max(0, size), SIZES - 1), min(max(-LARGEST_TURN, turn), LARGEST_TURN))


def place_at(pose: FacePose) -> Place:
    """Where a pose says that the face is."""
    distance = LEAST_SIZE * math.exp(SIZE_STEP * pose.size)
    return Place(FACE_STEP * pose.x, FACE_STEP * pose.y, distance, TURN_STEP * pose.turn)


def cut_out(picture: Picture, place: Place) -> Picture:
    """The face (FACE_SIDE, FACE_SIDE, 3) of a ``picture`` (H, W, 3); beyond its edge it is blank."""
    image, scale = Image.fromarray(picture), place.distance / EYES_APART
    x, y, reduced = place.x, place.y, 1
    while scale >= 2:  # sampled places would leave pixels out
        image, scale, reduced = image.reduce(2), scale / 2, reduced * 2
    x, y = x / reduced, y / reduced
    along, across = scale * math.cos(place.turn), scale * math.sin(place.turn)
    u, v = MIDDLE
    matrix = (along, -across, x - along * u + across * v, across, along, y - across * u - along * v)
    size = (FACE_SIDE, FACE_SIDE)
    return np.asarray(
        image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=(BLANK,) * 3)
    )


def paint(picture: Picture, place: Place, change: Picture) -> Picture:
    """A copy of the ``picture`` (H, W, 3 or 4) with the ``change`` (FACE_SIDE, FACE_SIDE, 3) of its face, grey levels
    plus `NO_CHANGE`, added."""
    scale = EYES_APART / place.distance
    image, (u, v) = Image.fromarray(change), MIDDLE
    while scale >= 2:
        image, scale, u, v = image.reduce(2), scale / 2, u / 2, v / 2
    left, top, right, bottom = _box(place, picture.shape[:2])
    result = picture.copy()
    if left >= right or top >= bottom:
        return result
    along, across = scale * math.cos(place.turn), scale * math.sin(place.turn)
    x, y = place.x - left, place.y - top
    matrix = (along, across, u - along * x - across * y, -across, along, v + across * x - along * y)
    moved = image.transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=(NO_CHANGE,) * 3,
    )
    part = result[top:bottom, left:right, :3]
    part[:] = (part.astype(np.int16) + np.asarray(moved) - NO_CHANGE).clip(0, 255)
    return result


def _box(place: Place, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what a cut-out face covers of a picture (H, W)."""
    scale = place.distance / EYES_APART
    corners = np.array([(u, v) for u in (0, FACE_SIDE) for v in (0, FACE_SIDE)], float) - MIDDLE
    cosine, sine = math.cos(place.turn), math.sin(place.turn)
    places = scale * corners @ np.array([[cosine, sine], [-sine, cosine]]) + (place.x, place.y)
    left, top = np.floor(places.min(0)).astype(int)
    right, bottom = np.ceil(places.max(0)).astype(int)
    return max(0, int(left)), max(0, int(top)), min(shape[1], int(right)), min(shape[0], int(bottom))

"""The key's face, brought to where the picture's is before E and G compare the two.

A head that turns moves by many cells, and what a code of two channels says of such a motion is too coarse: between two
keys G tears faces. Where the face is in both is known, though (`codec.face`), and so the key is moved around it by the
similarity that takes one place to the other, whole near the eyes and less and less further out. How far out is chosen
by the sender, by what comes nearest to its picture: a head that nods takes its hair along, one that looks aside does
not. E reads the key that `align` moved; G is given the displacement and samples the key's features through it, so that
these are computed once a key.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamgc.codec.face import REACHES, FaceCode, FacePose
from streamgc.pipeline.face import Place, place_at

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
RADII = ((0.9, 2.2), (1.9, 3.6))
"""By reach, from 1 on: up to which distance from the face's middle the key is moved whole, and from which on not at
all; in distances of the eyes."""
LOWER = 0.5
"""The face's middle is so many distances of the eyes below that of the eyes."""
STEP, MESH = 8, 16
"""Pixels from one displacement that is computed to the next, for G and for pictures; between them they are linear."""
FAVOURED = 0.92
"""The reach of the picture before is kept unless another one's error is below this share of its own: what changes back
and forth flickers."""
COMPARED = 3.0
"""Around the eyes' middle, up to so many of their distances, pictures are compared to choose a reach."""


class Aligned(NamedTuple):
    """A key as E sees it."""

    picture: Picture
    home: FacePose | None
    """Where the face is in the key; None: no face was found there."""
    reach: int


def displacement(face: FaceCode | None, height: int, width: int) -> Floats:
    """From where each place of a picture takes the key, (2, H / 8, W / 8): x and y in pixels, at the middles of squares
    of 8; zero where the key stays as it is."""
    if face is None or face.home is None or not face.reach:
        return np.zeros((2, height // STEP, width // STEP), np.float32)
    rows, columns = (np.arange(STEP / 2, side, STEP, dtype=np.float32) for side in (height, width))
    return _displaced(place_at(face.pose), place_at(face.home), face.reach, rows, columns)


def align(key: Picture, pose: FacePose, home: FacePose, reach: int) -> Picture:
    """A ``key`` (H, W, 3) whose face, which is at ``home``, lies at ``pose``."""
    if not reach or pose == home:
        return key
    return _moved(key, place_at(pose), place_at(home), reach, MESH)


def _moved(key: Picture, now: Place, home: Place, reach: int, mesh: int) -> Picture:
    """``mesh``: pixels along the side of a square."""
    height, width = key.shape[:2]
    rows, columns = (
        np.arange(max(0, low), min(high, most) + 1, mesh, dtype=np.float32)
        for low, high, most in zip(*_box(now, reach, mesh), (height, width), strict=True)
    )
    if len(rows) < 2 or len(columns) < 2:
        return key
    moved = _displaced(now, home, reach, rows, columns)
    # What lies beyond the picture would be black.
    x = (moved[0] + columns).clip(0, width - 0.01)
    y = (moved[1] + rows[:, None]).clip(0, height - 0.01)
    corners = np.stack([x, y], -1)
    # Upper left, lower left, lower right, upper right, as PIL wants them.
    quads = np.concatenate([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], -1).tolist()
    squares = [
        ((mesh * column, mesh * row, mesh * column + mesh, mesh * row + mesh), quad)
        for row, line in enumerate(quads)
        for column, quad in enumerate(line)
    ]
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])
    size = (right - left, bottom - top)
    part = Image.fromarray(key).transform(size, Image.Transform.MESH, squares, Image.Resampling.BILINEAR)
    result = key.copy()
    result[top:bottom, left:right] = np.asarray(part)
    return result


def _box(place: Place, reach: int, mesh: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top and left, bottom and right of what a reach may move, in whole squares."""
    (x, y), radius = _middle(place), RADII[reach - 1][1] * place.distance
    low = math.floor((y - radius) / mesh) * mesh, math.floor((x - radius) / mesh) * mesh
    return low, (math.ceil((y + radius) / mesh) * mesh, math.ceil((x + radius) / mesh) * mesh)


class Aligner:
    """Chooses for a sender how far around the face the key is moved. Not thread-safe: one sender owns it."""

    def __init__(self) -> None:
        self._reach = 0
        self._of: tuple[Picture, FacePose, FacePose] | None = None
        self._small: dict[int, NDArray[np.int16]] = {}
        self._aligned: dict[int, Picture] = {}

    def choose(
        self, kept: Picture, matte: NDArray[np.uint8], pose: FacePose, home: FacePose | None, key: Picture
    ) -> Aligned:
        """For the ``kept`` picture (H, W, 3) with its ``matte`` (H, W), whose face is at ``pose``, and a ``key`` that
        has it at ``home``; the same array for the same key."""
        if home is None:
            self._reach = 0
            return Aligned(key, None, 0)
        if self._of is None or self._of[0] is not key or self._of[1:] != (pose, home):
            self._of, self._aligned = (key, pose, home), {}
            small = _small(key)
            now, was = _halved(place_at(pose)), _halved(place_at(home))
            moved = [
                small if pose == home else _moved(small, now, was, reach, MESH // 2) for reach in range(1, REACHES)
            ]
            self._small = {reach: made.astype(np.int16) for reach, made in enumerate([small, *moved])}
        seen, picture = _compared(matte, place_at(pose)), _small(kept).astype(np.int16)
        errors = {reach: _error(made, picture, seen) for reach, made in self._small.items()}
        errors[self._reach] *= FAVOURED
        self._reach = min(errors, key=lambda reach: errors[reach])
        if self._reach not in self._aligned:
            self._aligned[self._reach] = align(key, pose, home, self._reach)
        return Aligned(self._aligned[self._reach], home, self._reach)


def _displaced(now: Place, home: Place, reach: int, rows: Floats, columns: Floats) -> Floats:
    """From where each place takes the key, (2, rows, columns), see `displacement`."""
    x, y = columns[None, :] - np.float32(now.x), rows[:, None] - np.float32(now.y)
    scale, turn = home.distance / now.distance, home.turn - now.turn
    along, across = np.float32(scale * np.cos(turn)), np.float32(scale * np.sin(turn))
    middle, (inner, outer) = _middle(now), RADII[reach - 1]
    far = np.hypot(columns[None, :] - middle[0], rows[:, None] - middle[1]) / now.distance
    share = ((outer - far) / (outer - inner)).clip(0, 1)
    whole = share * share * (3 - 2 * share)
    to_x = home.x + along * x - across * y - columns[None, :]
    to_y = home.y + across * x + along * y - rows[:, None]
    return np.asarray(whole * np.stack([to_x, to_y]), np.float32)


def _middle(place: Place) -> tuple[np.float32, np.float32]:
    down = LOWER * place.distance
    return np.float32(place.x - down * np.sin(place.turn)), np.float32(place.y + down * np.cos(place.turn))


def _compared(matte: NDArray[np.uint8], place: Place) -> NDArray[np.bool_]:
    """Where pictures are compared, (H / 2, W / 2)."""
    inside = matte[::2, ::2] > 0
    rows, columns = (np.arange(0, 2 * side, 2, dtype=np.float32) for side in inside.shape)
    square = (columns[None, :] - np.float32(place.x)) ** 2 + (rows[:, None] - np.float32(place.y)) ** 2
    return np.asarray(inside & (square < (COMPARED * place.distance) ** 2))


def _error(made: NDArray[np.int16], picture: NDArray[np.int16], seen: NDArray[np.bool_]) -> float:
    return float((np.abs(made - picture) * seen[..., None]).sum(dtype=np.int64))


def _small(picture: Picture) -> Picture:
    """At half the size: enough to compare by."""
    return np.asarray(Image.fromarray(picture).reduce(2))


def _halved(place: Place) -> Place:
    return Place(place.x / 2, place.y / 2, place.distance / 2, place.turn)

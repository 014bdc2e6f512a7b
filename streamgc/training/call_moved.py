"""Keys that are moved to the face, in training: as a call does it (`pipeline/alignment.py`), in samples' crops.

A call codes where the face is to the pixel, 3 % and 2 degrees, and so is it here; it moves the key as far around the
face as brings it nearest to the picture, and so mostly do samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamgc.codec.face import REACHES, FaceCode, FacePose
from streamgc.networks.lite import enlarged, warp
from streamgc.pipeline.alignment import COMPARED, STEP, displacement
from streamgc.pipeline.face import Place, place_at, place_of, pose_of
from streamgc.pipeline.faces import SMALLEST, SMALLEST_HOME

UNMOVED_SHARE = 0.12
"""Share of faces that a call does not find, or not in the key."""
ANY_REACH_SHARE = 0.2
"""Share of samples whose reach is anyone's: a call keeps one for a while, and chooses by pictures half the size."""
MEASURED = (0.4, 0.012, 0.012)
"""Standard deviations of what a call measures: pixels of the middle, of the logarithm of the size, radians."""

Floats = NDArray[np.float32]


class Faces(NamedTuple):
    """Where a sample's face is in its crops; None: not in it."""

    pictures: tuple[FacePose | None, FacePose | None]
    key: FacePose | None


def pose_within(
    face: Floats, grid: Floats, source: int, smallest: float, random: np.random.Generator
) -> FacePose | None:
    """The pose in a crop of a ``face`` (7 numbers, `call_samples`) of a picture of ``source`` pixels a side, as a call
    would measure it; None when there is none, it lies outside, or is too small. ``grid`` (S, S, 2): what of the source
    the crop shows, x and y in -1…1."""
    if np.isnan(face).any():
        return None
    size = grid.shape[0]
    eyes = [_found(part, grid) for part in ((face[:4] + 0.5) / source * 2 - 1).astype(np.float32).reshape(2, 2)]
    left, right = sorted(eyes, key=lambda eye: float(eye[0]))
    place = place_of(left, right)
    shift, sizes, turns = MEASURED
    x, y = random.normal(0, shift, 2)
    place = Place(
        place.x + x,
        place.y + y,
        place.distance * float(np.exp(random.normal(0, sizes))),
        place.turn + float(random.normal(0, turns)),
    )
    inside = 0 < place.x < size and 0 < place.y < size
    return pose_of(place, size, size) if inside and place.distance >= smallest else None


def faces_within(
    faces: Floats, key_face: Floats, grids: list[Floats], source: int, random: np.random.Generator
) -> Faces:
    """Of a sample's ``faces`` (2, 7) and that of its key (7,), by the ``grids`` of its pictures and its key."""
    if random.random() < UNMOVED_SHARE:
        return Faces((None, None), None)
    older, newer = (
        pose_within(face, grid, source, SMALLEST, random) for face, grid in zip(faces, grids[:2], strict=True)
    )
    return Faces((older, newer), pose_within(key_face, grids[2], source, SMALLEST_HOME, random))


def displacements(
    shown: Tensor, mattes: Tensor, key: Tensor, faces: list[Faces], random: np.random.Generator
) -> Tensor:
    """How the ``key`` (B, 3, S, S) is moved for the pictures ``shown`` (B, 2, 3, S, S) with ``mattes`` (B, 2, 1, S, S):
    (B, 2, 2, S / 8, S / 8), as G takes it."""
    size = key.shape[-1]
    result = torch.zeros(*shown.shape[:2], 2, size // STEP, size // STEP)
    for i, of in enumerate(faces):
        anyone = random.random() < ANY_REACH_SHARE
        for k, pose in enumerate(of.pictures):
            if pose is None or of.key is None:
                continue
            moves = torch.from_numpy(np.stack([_displacement(pose, of.key, reach, size) for reach in range(REACHES)]))
            if anyone:
                reach = int(random.integers(REACHES))
            else:
                made = moved_key(key[i : i + 1].expand(REACHES, -1, -1, -1), moves)
                seen = mattes[i, k] * _near(pose, size)
                reach = int(((made - shown[i, k]).abs() * seen).sum((1, 2, 3)).argmin())
            result[i, k] = moves[reach]
    return result


def moved_key(key: Tensor, moved: Tensor) -> Tensor:
    """A ``key`` (B, 3, S, S) as E sees it, ``moved`` (B, 2, S / 8, S / 8)."""
    return warp(key, enlarged(moved, STEP), 1)


def _displacement(pose: FacePose, home: FacePose, reach: int, size: int) -> Floats:
    return displacement(FaceCode(pose, np.zeros(6, np.int8), home, reach), size, size)


def _near(pose: FacePose, size: int) -> Tensor:
    """(S, S): 1 where pictures are compared."""
    place = place_at(pose)
    line = torch.arange(size, dtype=torch.float32) + 0.5
    square = (line[None] - place.x) ** 2 + (line[:, None] - place.y) ** 2
    return (square < (COMPARED * place.distance) ** 2).float()


def _found(point: Floats, grid: Floats) -> Floats:
    """Where in a crop a ``point`` (x, y) of the source is shown, counted from the centre of the upper left pixel: the
    nearest pixel of every fourth, and on from there as the grid goes on."""
    rows, columns = grid.shape[:2]
    away = grid[::4, ::4] - point
    row, column = divmod(int((away * away).sum(-1).argmin()), (columns + 3) // 4)
    r, c = min(max(4 * row, 1), rows - 2), min(max(4 * column, 1), columns - 2)
    slope = np.stack([grid[r, c + 1] - grid[r, c - 1], grid[r + 1, c] - grid[r - 1, c]], 1) / 2
    return np.asarray(np.array([c, r]) + np.linalg.solve(slope, point - grid[r, c]), np.float32)

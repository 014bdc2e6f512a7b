"""Eyes and mouths of other people, laid over a face: what a call's code has to say between two keys.

A face that speaks and blinks is a small part of few clips, and whoever codes it learns to move the key's mouth about.
With the eyes and the mouth of another picture in the key, or in what follows it, the code must draw them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Face = NDArray[np.float32]
EYE_AXES, MOUTH_AXES = (0.5, 0.38), (0.65, 0.5)
"""Half axes of the ellipses that are laid over, in distances of the eyes."""
SHARPNESS = 6.0
"""How fast an ellipse fades at its edge."""
REACH = 1.8
"""Half side of the square in which one is drawn, in its longer half axis; beyond, it has faded to a hundredth."""
LARGEST_STRETCH = 1.6
"""Faces whose proportions differ by more are not laid over each other: one of them looks aside."""
LARGEST_SHIFT = 60.0
"""Grey levels by which what is laid over is tinted at most, so that it fits."""


class Parts(NamedTuple):
    """Which parts of a face are taken."""

    eyes: bool
    mouth: bool


def some_parts(random: np.random.Generator) -> Parts:
    """Eyes, mouth or both."""
    roll = random.random()
    return Parts(bool(roll < 0.6), bool(roll > 0.3))


def mirrored(picture: Picture, face: Face) -> tuple[Picture, Face]:
    """A picture (H, W, 3) and the seven numbers of its face (`call_samples.FACE_NUMBERS`), left and right exchanged."""
    width = picture.shape[1]
    left, right, mouth = face[:6].reshape(3, 2)
    turned = [np.array([width - 1 - x, y], np.float32) for x, y in (right, left, mouth)]
    return np.ascontiguousarray(picture[:, ::-1]), np.concatenate([*turned, face[6:]]).astype(np.float32)


def swapped(picture: Picture, face: Face, donor: Picture, donor_face: Face, parts: Parts) -> Picture:
    """``picture`` (H, W, 3) with parts of the ``donor``'s face where its own are; unchanged where one of the faces is
    not known (NaN) or they do not fit."""
    if np.isnan(face).any() or np.isnan(donor_face).any():
        return picture
    matrix = _affine(face[:6].reshape(3, 2), donor_face[:6].reshape(3, 2))
    if matrix is None:
        return picture
    height, width = picture.shape[:2]
    laid = Image.fromarray(donor).transform(
        (width, height), Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BILINEAR
    )
    result = picture.astype(np.float32)
    over = np.asarray(laid, np.float32)
    for where, mask in _masks(face, parts, height, width):
        difference = over[where] - result[where]
        tint = (difference * mask).sum((0, 1)) / (float(mask.sum()) + 1e-3)
        result[where] += mask * (difference - tint.clip(-LARGEST_SHIFT, LARGEST_SHIFT))
    return result.clip(0, 255).astype(np.uint8)


def _affine(target: NDArray[np.float32], source: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """(2, 3): from places of the target to places of the source, three points onto three; None where it distorts."""
    corners = np.column_stack([target.astype(np.float64), np.ones(3)])
    if abs(np.linalg.det(corners)) < 1.0:
        return None
    matrix: NDArray[np.float64] = np.linalg.solve(corners, source.astype(np.float64)).T
    stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return None if stretch[0] > LARGEST_STRETCH * stretch[1] else matrix


Mask = tuple[tuple[slice, slice], NDArray[np.float32]]


def _masks(face: Face, parts: Parts, height: int, width: int) -> list[Mask]:
    """Soft ellipses along the line of the eyes, and where in the picture they are."""
    points, distance = face[:6].reshape(3, 2), max(float(face[6]), 4.0)
    across = points[1] - points[0]
    angle = math.atan2(float(across[1]), float(across[0]))
    wanted = [(points[0], EYE_AXES), (points[1], EYE_AXES)] * parts.eyes + [(points[2], MOUTH_AXES)] * parts.mouth
    masks = []
    for (x, y), (wide, high) in wanted:
        reach = REACH * wide * distance
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        bottom, right = min(height, math.ceil(y + reach)), min(width, math.ceil(x + reach))
        if top >= bottom or left >= right:
            continue
        rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
        dx, dy = columns - x, rows - y
        u = (dx * math.cos(angle) + dy * math.sin(angle)) / (wide * distance)
        v = (dy * math.cos(angle) - dx * math.sin(angle)) / (high * distance)
        edge = (SHARPNESS * (1 - np.hypot(u, v))).clip(-30, 30)
        masks.append(((slice(top, bottom), slice(left, right)), (1 / (1 + np.exp(-edge)))[..., None]))
    return masks

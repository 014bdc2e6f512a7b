"""A face's own eyes and mouth, moved a little: where somebody looks, how far lids and lips are open.

Between two keys of a call this is most of what a face does, by fractions of a pixel to a few; the clips to train on
hold little of it. Places are bent smoothly around a part, so that what a sample shows stays a photograph.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from streamgc.networks.face import IRIS, LIDS, LIPS
from streamgc.training.face_swaps import Face, Picture

LARGEST_GAZE = (0.10, 0.04)
"""How far an iris moves at most, in distances of the eyes; with `networks.face.IRIS` places still keep their order."""
REACH = 3.0
"""Beyond so many times what it fades over, a move is nothing."""


class Expression(NamedTuple):
    """What is moved; all zeros: nothing."""

    gaze: tuple[float, float] = (0.0, 0.0)
    """By how much of the distance of the eyes the irises move, along the line of the eyes and down."""
    lids: float = 0.0
    """−0.5: an eye half as large again and more; 0.9: nearly closed."""
    lips: float = 0.0
    """0.7: a mouth open half as far again and more; −0.5: nearly closed."""
    width: float = 0.0
    """−0.2: a mouth a quarter wider; 0.25: a fifth narrower."""


def some_expression(random: np.random.Generator) -> Expression:
    """Eyes, mouth or both."""
    roll = random.random()
    eyes, mouth = roll < 0.7, roll > 0.4
    along, down = (float(np.clip(random.normal(0, 0.6) * most, -most, most)) for most in LARGEST_GAZE)
    lids = float(random.uniform(-0.4, 0.9)) if random.random() < 0.5 else 0.0
    return Expression(
        (along, down) if eyes else (0.0, 0.0),
        lids if eyes else 0.0,
        float(random.uniform(-0.5, 0.7)) if mouth else 0.0,
        float(random.uniform(-0.2, 0.25)) if mouth else 0.0,
    )


def moved(picture: Picture, face: Face, expression: Expression) -> Picture:
    """``picture`` (H, W, 3) with the parts of its ``face`` (`call_samples.FACE_NUMBERS`) moved; unchanged where there
    is no face (NaN)."""
    if np.isnan(face).any():
        return picture
    result = picture.copy()
    points, distance = face[:6].reshape(3, 2), max(float(face[6]), 4.0)
    across = points[1] - points[0]
    angle = math.atan2(float(across[1]), float(across[0]))
    for part, centre in enumerate(points):
        square = _square(centre, distance, picture.shape[:2])
        if square is None:
            continue
        rows, columns = np.mgrid[square].astype(np.float32)
        dx, dy = (columns - centre[0]) / distance, (rows - centre[1]) / distance
        u = dx * math.cos(angle) + dy * math.sin(angle)
        v = dy * math.cos(angle) - dx * math.sin(angle)
        to_u, to_v = _mouth(u, v, expression) if part == 2 else _eye(u, v, expression)
        x = centre[0] + distance * (to_u * math.cos(angle) - to_v * math.sin(angle))
        y = centre[1] + distance * (to_v * math.cos(angle) + to_u * math.sin(angle))
        # From what has been moved already: where two squares overlap, one's moves have faded.
        result[square] = _taken(result, x, y)
    return result


Field = NDArray[np.float32]


def _eye(u: Field, v: Field, expression: Expression) -> tuple[Field, Field]:
    """Where in the picture each place of an eye is taken from, in distances of the eyes from its centre."""
    iris, lids = _fading(u, v, IRIS), _fading(u, v, LIDS)
    return u - expression.gaze[0] * iris, v - expression.gaze[1] * iris + expression.lids * v * lids


def _mouth(u: Field, v: Field, expression: Expression) -> tuple[Field, Field]:
    lips = _fading(u, v, LIPS)
    return u * (1 + expression.width * lips), v * (1 - expression.lips * lips)


def _fading(u: Field, v: Field, over: tuple[float, float]) -> Field:
    return np.exp(-((u / over[0]) ** 2) - (v / over[1]) ** 2, dtype=np.float32)


def _square(centre: Face, distance: float, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """The rows and columns around a part that a move reaches; None where the part is out of the picture."""
    reach = REACH * max(LIPS) * distance / 1.5
    top, left = max(0, int(centre[1] - reach)), max(0, int(centre[0] - reach))
    bottom, right = min(shape[0], math.ceil(centre[1] + reach)), min(shape[1], math.ceil(centre[0] + reach))
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _taken(picture: Picture, x: Field, y: Field) -> Picture:
    """The picture at places between its pixels."""
    height, width = picture.shape[:2]
    grid = torch.from_numpy(np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)[None])
    source = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    at = F.grid_sample(source, grid.float(), mode="bicubic", padding_mode="border", align_corners=False)
    return at[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

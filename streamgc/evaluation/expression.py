"""Does the face that is shown speak and look as the face that was sent: how far lips and lids are open, where the
eyes look, how the head turns, and whether these go up and down together in both.

dlib's 68 landmarks are asked where the face is in the original, of both pictures. All lengths are in distances of the
eyes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.evaluation.clips import Frame

Points = NDArray[np.float64]
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
NOSE, UPPER_LIP, LOWER_LIP = 30, 62, 66
LEAST_FRAMES = 8
"""Fewer frames with a face say nothing about what goes together."""
LEAST_MOTION = {"lips": 0.03, "lids": 0.015, "gaze": 0.02, "turn": 0.03}
"""Standard deviation in the original below which a part has not moved: what landmarks jitter by."""
DARK_SHARE = 40
"""Per cent of an eye's pixels that may be iris and pupil; how dark they are says where they are."""


class Expression(NamedTuple):
    """Of one face."""

    lips: float
    """Distance between the inner lips."""
    lids: float
    """Distance between the lids, mean of both eyes."""
    gaze: float
    """Where iris and pupil are between the corners of the eye, 0..1, mean of both eyes."""
    turn: tuple[float, float]
    """Where the tip of the nose is from the middle of the eyes, along the line of the eyes and across it."""


def expression(picture: Frame, points: Points) -> Expression:
    """Of the face with these 68 ``points`` (68, 2), x and y, in a picture (H, W, 3) RGB."""
    left, right = points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0)
    across = right - left
    distance = max(1e-6, float(np.linalg.norm(across)))
    along = across / distance
    nose = (points[NOSE] - (left + right) / 2) / distance
    turn = float(nose @ along), float(nose @ np.array([-along[1], along[0]]))
    lips = float(np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP])) / distance
    eyes = [points[part] for part in (LEFT_EYE, RIGHT_EYE)]
    lids = [np.linalg.norm(eye[1] - eye[5]) + np.linalg.norm(eye[2] - eye[4]) for eye in eyes]
    grey = picture.mean(axis=2)
    return Expression(
        lips, float(np.mean(lids)) / 2 / distance, float(np.mean([_iris(grey, eye) for eye in eyes])), turn
    )


def _iris(grey: NDArray[np.float64], eye: Points) -> float:
    """Where the darkest part of an eye is between its corners, 0..1; the middle where the eye is outside the
    picture."""
    (left, top), (right, bottom) = eye.min(0), eye.max(0)
    first = max(0, int(left))
    part = grey[max(0, int(top) - 1) : max(0, int(bottom) + 2), first : max(0, int(right) + 2)]
    if part.size == 0 or right <= left:
        return 0.5
    dark = (np.percentile(part, DARK_SHARE) - part).clip(0)
    if dark.sum() <= 0:
        return 0.5
    centre = float((dark * (first + np.arange(part.shape[1]))).sum() / dark.sum())
    return min(1.0, max(0.0, (centre - float(left)) / float(right - left)))


def follows(sent: Sequence[Expression], shown: Sequence[Expression]) -> dict[str, float]:
    """For each part how well its motion goes with the original's: the correlation over a clip's faces, -1..1; NaN
    where there are too few, or the part has not moved."""
    result = {}
    for part, least in LEAST_MOTION.items():
        first, second = (np.array([np.atleast_1d(getattr(face, part)) for face in faces]) for faces in (sent, shown))
        result[f"{part}_follow"] = float("nan")
        if len(first) < LEAST_FRAMES:
            continue
        first, second = first - first.mean(0), second - second.mean(0)
        moved, its = float((first**2).sum()), float((second**2).sum())
        if moved >= len(first) * least**2:
            result[f"{part}_follow"] = round(float((first * second).sum()) / np.sqrt(max(moved * its, 1e-12)), 4)
    return result

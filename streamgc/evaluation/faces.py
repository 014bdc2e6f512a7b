"""Where a face has its eyes and mouth: dlib's detector and its own five-point landmarks. For training and evaluation.

Optional: the extra `faces` (dlib-bin, face-recognition-models: CC0).
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]

_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
_CONTOURS = "shape_predictor_68_face_landmarks.dat"
MOUTH_BELOW = 1.45
"""The mouth lies so many times as far below the eyes as the base of the nose: the five points leave it out."""

FACE_BOX = (2, 0, 118, 116)
"""Left, top, right, bottom of dlib's rectangle of a face that was cut out: its detector's are 2.4 times as wide as the
eyes are apart."""


class FacePoints(NamedTuple):
    """Centres of the eyes (left in the picture first) and of the mouth, (x, y) in pixels, and the eyes' distance."""

    left_eye: Points
    right_eye: Points
    mouth: Points
    eye_distance: float


def model_folder() -> Path:
    """Of the package face-recognition-models, without importing it: its own import needs a part of setuptools that is
    no more. Raises BackendMissing where it or dlib is not installed."""
    spec = importlib.util.find_spec("face_recognition_models")
    locations = spec.submodule_search_locations if spec is not None else None
    if not locations or importlib.util.find_spec("dlib") is None:
        raise BackendMissing("faces need dlib: pip install 'streamgc[faces]'")
    return Path(next(iter(locations))) / "models"


class FaceFinder:
    """Frontal faces of about 40 pixels and more."""

    def __init__(self) -> None:
        """Raises BackendMissing where the packages are not installed."""
        folder = model_folder()
        dlib: Any = importlib.import_module("dlib")
        self._dlib = dlib
        self._contours: Any = None
        self._detector = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(folder / _LANDMARKS))

    def largest(self, picture: Picture) -> Any | None:
        """dlib's rectangle of the largest face of a picture (H, W, 3) RGB; None where there is none."""
        boxes = list(self._detector(np.ascontiguousarray(picture), 1))
        return max(boxes, key=lambda found: int(found.area())) if boxes else None

    def shape(self, picture: Picture, box: Any) -> Any:
        """dlib's landmarks of a face in a rectangle of `largest`."""
        return self._landmarks(np.ascontiguousarray(picture), box)

    def contours(self, picture: Picture, box: Any) -> Points:
        """dlib's 68 landmarks of a face in a rectangle of `largest`, (68, 2), x and y in pixels."""
        if self._contours is None:
            self._contours = self._dlib.shape_predictor(str(model_folder() / _CONTOURS))
        found = self._contours(np.ascontiguousarray(picture), box)
        return np.array([(part.x, part.y) for part in found.parts()], np.float64)

    def face_contours(self, face: Picture) -> Points:
        """The same of a face that `pipeline.face.cut_out` has cut out, which need not be looked for."""
        return self.contours(face, self._dlib.rectangle(*FACE_BOX))

    def points(self, picture: Picture, box: Any) -> FacePoints:
        """Eyes and mouth of the face in a rectangle of `largest`."""
        corners = np.array([(part.x, part.y) for part in self.shape(picture, box).parts()], np.float64)
        first, second = corners[0:2].mean(0), corners[2:4].mean(0)
        left, right = (first, second) if first[0] <= second[0] else (second, first)
        between = (left + right) / 2
        mouth = between + MOUTH_BELOW * (corners[4] - between)
        return FacePoints(left, right, mouth, float(np.linalg.norm(right - left)))

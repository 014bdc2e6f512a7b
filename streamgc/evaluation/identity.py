"""Is the face that is shown the face that was sent, and does it look and speak as the sender does?

dlib's face recognition, used for evaluation only: two faces less than 0.6 apart count as the same person, which is the
threshold the network was published with. How eyes and mouth move is measured where they are in the original.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.evaluation.clips import Frame
from streamgc.evaluation.expression import Expression, expression, follows
from streamgc.evaluation.faces import FaceFinder, FacePoints, Points, model_folder

SAME_PERSON = 0.6
_RECOGNITION = "dlib_face_recognition_resnet_model_v1.dat"
PART_RADIUS = 0.35
"""Half the side of the squares cut around eyes and mouth, in distances between the eyes."""


class FaceLikeness(NamedTuple):
    """What one shown face keeps of the face that was sent."""

    distance: float
    """Between the identities; 0 for the same picture."""
    landmark_error: float
    """Mean displacement of the centres of eyes and mouth, as a share of the eyes' distance."""
    eyes_psnr: float
    """dB, on a square around each eye of the original's; 100 at most."""
    mouth_psnr: float
    sent: Expression
    shown: Expression


class FaceIdentity:
    """Compares the largest face sent with what is shown at its place."""

    def __init__(self) -> None:
        """Loads detector, landmarks and recognition; raises BackendMissing where the packages are not installed."""
        self._finder = FaceFinder()
        dlib: Any = importlib.import_module("dlib")
        self._recognition = dlib.face_recognition_model_v1(str(model_folder() / _RECOGNITION))

    def _descriptor(self, picture: Frame, box: Any) -> NDArray[np.float64]:
        shape = self._finder.shape(picture, box)
        return np.asarray(self._recognition.compute_face_descriptor(picture, shape), np.float64)

    def likeness(self, original: Frame, shown: Frame) -> FaceLikeness | None:
        """None where the original (H, W, 3) shows no face."""
        first, second = (np.ascontiguousarray(picture) for picture in (original, shown))
        box = self._finder.largest(first)
        if box is None:
            return None
        here, there = self._finder.points(first, box), self._finder.points(second, box)
        distance = np.linalg.norm(self._descriptor(first, box) - self._descriptor(second, box))
        eyes = [_part_error(first, second, centre, here.eye_distance) for centre in (here.left_eye, here.right_eye)]
        mouth = _part_error(first, second, here.mouth, here.eye_distance)
        faces = [expression(picture, self._finder.contours(picture, box)) for picture in (first, second)]
        return FaceLikeness(
            float(distance), _displacement(here, there), _psnr(float(np.mean(eyes))), _psnr(mouth), *faces
        )

    def compare(self, originals: list[Frame], shown: list[Frame]) -> dict[str, float | int]:
        """Means over the frames with a face, the share of them that shows the same person, their number, and how well
        what is shown moves as the original (`expression.follows`).

        NaN in place of means where no original frame shows a face.
        """
        pairs = zip(originals, shown, strict=False)
        found = [likeness for first, second in pairs if (likeness := self.likeness(first, second)) is not None]

        def mean(values: list[float]) -> float:
            return round(float(np.mean(values)), 4) if values else float("nan")

        return {
            "identity_distance": mean([face.distance for face in found]),
            "identity_same": mean([float(face.distance < SAME_PERSON) for face in found]),
            "landmark_error": mean([face.landmark_error for face in found]),
            "eyes_psnr": mean([face.eyes_psnr for face in found]),
            "mouth_psnr": mean([face.mouth_psnr for face in found]),
            "identity_frames": len(found),
            **follows([face.sent for face in found], [face.shown for face in found]),
        }


def _displacement(here: FacePoints, there: FacePoints) -> float:
    moved = [np.linalg.norm(a - b) for a, b in zip(here[:3], there[:3], strict=True)]
    return float(np.mean(moved)) / here.eye_distance


def _part_error(original: Frame, shown: Frame, centre: Points, eye_distance: float) -> float:
    """Mean squared difference on a square around a part of the face, in squared grey levels."""
    x, y = (round(float(value)) for value in centre)
    radius = max(2, round(PART_RADIUS * eye_distance))
    part = (slice(max(0, y - radius), max(1, y + radius)), slice(max(0, x - radius), max(1, x + radius)))
    return float(np.mean((original[part].astype(np.float64) - shown[part]) ** 2)) if original[part].size else 0.0


def _psnr(error: float) -> float:
    return float(10 * np.log10(255.0**2 / max(error, 255.0**2 * 1e-10)))

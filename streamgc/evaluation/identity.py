"""Is the face that is shown the face that was sent? dlib's face recognition, used for evaluation only.

Optional: `pip install dlib-bin face-recognition-models` (the models are CC0). Two faces less than 0.6 apart count as
the same person, which is the threshold the network was published with.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing
from streamgc.evaluation.clips import Frame

SAME_PERSON = 0.6
_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
_RECOGNITION = "dlib_face_recognition_resnet_model_v1.dat"


def _model_folder() -> Path | None:
    """Found without importing the package, whose own import needs a part of setuptools that is no more."""
    spec = importlib.util.find_spec("face_recognition_models")
    locations = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(locations))) / "models" if locations else None


class FaceIdentity:
    """Distance between the identities of the face sent and the face shown at its place."""

    def __init__(self) -> None:
        """Loads detector, landmarks and recognition; raises BackendMissing where the packages are not installed."""
        folder = _model_folder()
        if folder is None or importlib.util.find_spec("dlib") is None:
            raise BackendMissing("face identity needs: pip install dlib-bin face-recognition-models")
        dlib: Any = importlib.import_module("dlib")
        self._detector = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(folder / _LANDMARKS))
        self._recognition = dlib.face_recognition_model_v1(str(folder / _RECOGNITION))

    def _descriptor(self, picture: Frame, box: Any) -> NDArray[np.float64]:
        shape = self._landmarks(picture, box)
        return np.asarray(self._recognition.compute_face_descriptor(picture, shape), np.float64)

    def distance(self, original: Frame, shown: Frame) -> float | None:
        """Euclidean distance of the largest face's descriptors, 0 for the same picture; None where none is sent."""
        first, second = (np.ascontiguousarray(picture) for picture in (original, shown))
        boxes = list(self._detector(first, 1))
        if not boxes:
            return None
        box = max(boxes, key=lambda found: int(found.area()))
        return float(np.linalg.norm(self._descriptor(first, box) - self._descriptor(second, box)))

    def compare(self, originals: list[Frame], shown: list[Frame]) -> dict[str, float | int]:
        """Mean distance, the share of frames that show the same person, and the number of frames with a face.

        Distance and share are NaN where no original frame shows a face.
        """
        pairs = zip(originals, shown, strict=False)
        found = [d for d in (self.distance(first, second) for first, second in pairs) if d is not None]
        return {
            "identity_distance": round(float(np.mean(found)), 4) if found else float("nan"),
            "identity_same": round(float(np.mean([d < SAME_PERSON for d in found])), 4) if found else float("nan"),
            "identity_frames": len(found),
        }

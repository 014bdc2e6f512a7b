"""Where training looks for faces, so that they weigh more: dlib's detector, if it is installed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing
from streamgc.evaluation.faces import FaceFinder
from streamgc.training.call_cache import FindFace


def face_finder(say: Callable[[str], None]) -> FindFace | None:
    """Finds the largest face of a picture; None, said so, where dlib is not installed: no face weighs more then."""
    try:
        finder = FaceFinder()
    except BackendMissing as error:
        say(f"faces are not weighted: {error}")
        return None

    def find(picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        box = finder.largest(picture)
        if box is None:
            return None
        points = finder.points(picture, box)
        return np.array([*points.left_eye, *points.right_eye, *points.mouth, points.eye_distance], np.float32)

    return find

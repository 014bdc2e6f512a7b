"""What the sender's eyes report of a picture; the scene package's tracker and segmenter stand behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class View(NamedTuple):
    """A picture in the code's format and what is kept of it."""

    picture: NDArray[np.uint8]  # (H, W, 3)
    matte: NDArray[np.uint8]  # (H, W), 255 = leaves this machine, 0 = does not
    keep: NDArray[np.bool_]  # (h, w)
    labels: NDArray[np.uint8]  # (h, w), ids of scene.labels
    crop: tuple[int, int, int] | None  # x, y, size in the units of codec.sections.Crop; None = whole picture
    people: int  # kept
    found: int = 0  # people in the picture, kept or not
    strength: float = 1.0  # below 1 while what was kept last fades out because nobody is found; 0 when it is gone
    somebody: NDArray[np.uint8] | None = None  # (H, W), 0..255: everybody who is seen, kept or not; None: nobody
    large: Callable[[], NDArray[np.uint8]] | None = None  # makes the same picture twice as large, (2H, 2W, 3)


class Eyes(Protocol):
    """Looks at one picture after the other."""

    def look(self, picture: NDArray[np.uint8]) -> View:
        """``picture`` (any height, any width, 3) RGB uint8."""
        ...

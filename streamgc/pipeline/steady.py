"""Less flicker where nothing moves: what the receiver shows changes slowly where it hardly changes.

G paints every picture anew from a few symbols, and where the sender stands still its colours waver by a grey level or
two. A change that is small all around is therefore taken over in part, one that is larger at once and whole, so that
nothing that moves is smeared. This is for the eye only: no picture is coded or decoded from what was shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.uint8]
CALM, MOVED = 2.0, 5.0
"""Grey levels of change, mean of a place's surroundings: up to the first it is taken over in part, from the second on
whole."""
PART = 0.3
"""Share of a small change that is shown with every picture."""
REACH = 2
"""Pixels to every side that are a place's surroundings."""
FINE = 16
"""Steps of a grey level in which changes are measured; they are kept in eight bits, which hold `MOVED` and more."""


class Steadier:
    """Shows pictures one after another; all of one size."""

    def __init__(self) -> None:
        self._shown: NDArray[np.float32] | None = None
        self._change: NDArray[np.float32] = np.empty(0, np.float32)
        self._size: NDArray[np.float32] = np.empty(0, np.float32)
        level = np.arange(256, dtype=np.float32) / FINE
        self._share = (np.clip((level - CALM) / (MOVED - CALM), 0, 1) * (1 - PART) + PART).astype(np.float32)

    def forget(self) -> None:
        """The next picture is shown as it is: it has nothing to do with the last one."""
        self._shown = None

    def show(self, picture: Picture) -> Picture:
        """What is shown for a picture (H, W, C); one of another size begins anew."""
        if self._shown is None or self._shown.shape != picture.shape:
            self._shown = picture.astype(np.float32)
            self._change, self._size = np.empty_like(self._shown), np.empty_like(self._shown)
            return picture
        # Into arrays that are there: new ones of this size cost more than the sums.
        change, size = self._change, self._size
        np.subtract(picture, self._shown, out=change)
        np.abs(change, out=size)
        largest = size[..., 0]
        for channel in range(1, size.shape[2]):
            largest = np.maximum(largest, size[..., channel])
        fine = np.minimum(largest * FINE, 255).astype(np.uint8)
        around = np.asarray(Image.fromarray(fine).filter(ImageFilter.BoxBlur(REACH)))
        share = self._share.take(around)
        for channel in range(change.shape[2]):
            change[..., channel] *= share
        self._shown += change
        return np.add(self._shown, 0.5, out=size).astype(np.uint8)

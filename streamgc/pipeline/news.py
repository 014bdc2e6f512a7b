"""What has come in that no key shows: a cup, a second person, a face from the side.

A code moves what its key holds; what the key does not hold it can only hint at, and a key that is saved up for may be
seconds away. Movement alone must not ask for one, or whoever moves spends everything at once: a cell is new when
nothing in the key that lies within reach resembles it, and it counts once it has stayed new for a while, since a hand
that only passes has left again before a key could show it.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from streamgc.pipeline.settings import CELL

Picture = NDArray[np.uint8]
STEP = 4
"""Pixels along the side of the blocks whose means are compared; a cell has four by four of them."""
REACH = 4
"""Blocks, each way, within which a cell's content may have moved: 16 pixels."""
NEW_LEVEL = 24.0
"""Mean difference in grey levels, at the best place within reach, up to which a cell resembles the key. Over the
validation clips somebody who talks has up to two cells above it, a second person in a corner thirty."""
NEW_CELLS = 6
"""So many new cells are something new."""
ARRIVING_CELLS = 3
"""From so many new cells on something new may be arriving."""
NEW_SECONDS = 1 / 3
"""A cell counts when it has been new for so long."""
ARRIVING_SECONDS = 0.5
"""What moves longer than this, hands that sign, is not waited for."""
MOST_CELLS = 48
"""Of so many cells, those that have changed most, the content is looked for: it takes a hundredth of a millisecond
each."""


def unseen(kept: Picture, key: Picture, keep: NDArray[np.bool_]) -> NDArray[np.float32]:
    """By how many grey levels each cell of ``kept`` (H, W, 3) is farther than `NEW_LEVEL` from everything within reach
    in ``key`` (H, W, 3), f32 (h, w); 0 where ``keep`` (h, w) is not."""
    rows, columns = keep.shape
    side = CELL // STEP
    held = _blocks(key)
    cells = _blocks(kept).reshape(rows, side, columns, side, 3)
    change = np.where(keep, np.abs(cells - held.reshape(cells.shape)).mean((1, 3, 4), dtype=np.float32), 0)
    result = np.zeros(keep.shape, np.float32)
    place = np.argsort(-change, axis=None, kind="stable")[:MOST_CELLS]
    y, x = np.unravel_index(place[change.ravel()[place] > NEW_LEVEL], change.shape)
    if len(y) == 0:
        return result
    around = np.pad(held, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    windows = sliding_window_view(around, (side, side), axis=(0, 1))  # (places, places, 3, side, side)
    shifts = np.arange(2 * REACH + 1)
    candidates = windows[side * y[:, None, None] + shifts[:, None], side * x[:, None, None] + shifts]
    wanted = cells[y, :, x].transpose(0, 3, 1, 2)[:, None, None]
    least = np.abs(candidates - wanted).sum((3, 4, 5), dtype=np.int32).min((1, 2)) / wanted[0].size
    result[y, x] = np.maximum(0, least - NEW_LEVEL)
    return result


class Change(Enum):
    """What the new cells say."""

    NOTHING = 0
    ARRIVES = 1
    """Something new moves still: a key would show half of it."""
    STAYS = 2


class News:
    """Since when each cell has been new."""

    def __init__(self) -> None:
        self._ages: NDArray[np.intp] | None = None
        self._arriving = 0

    def see(self, new: NDArray[np.bool_], fps: float) -> Change:
        """Take in the new cells (h, w) of the next picture, of ``fps`` a second."""
        if self._ages is None or self._ages.shape != new.shape:
            self._ages = np.zeros(new.shape, np.intp)
        self._ages = np.where(new, self._ages + 1, 0)
        if int(new.sum()) < ARRIVING_CELLS:
            self._arriving = 0
            return Change.NOTHING
        if int((self._ages >= NEW_SECONDS * fps).sum()) >= NEW_CELLS:
            return Change.STAYS
        self._arriving += 1
        return Change.ARRIVES if self._arriving <= ARRIVING_SECONDS * fps else Change.NOTHING

    def forget(self) -> None:
        """A key that shows the picture is on its way."""
        self._ages, self._arriving = None, 0


def _blocks(picture: Picture) -> NDArray[np.int16]:
    """Means of blocks of `STEP` pixels, (H / STEP, W / STEP, 3)."""
    return np.asarray(Image.fromarray(picture).reduce(STEP), np.int16)

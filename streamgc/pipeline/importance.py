"""What an error weighs: in a cell of the code, and between a picture and the keys that may stand for it.

As much as the cell differs from the key, since where the key is right already symbols change little that anybody sees;
and more where E says that eyes and mouth are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.symbols import LEAST_CHANNELS

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
ALIKE = 0.3
"""Part of a cell's weight that does not depend on how much it differs from the key."""
LARGEST_WEIGHT = 5.0
"""By how much it differs, a cell weighs at most so many times the mean, and at least this part of it."""
FACE_ATTENTION = 0.16
"""E's attention to a face is this, to its eyes and mouth up to 1: what they have beyond it is taken care of."""
FACE_LEAST = 3.0
"""However little they differ from the key, they weigh as much as the mean where a third of a cell is theirs: a glance
is two pixels."""
FACE_RICH = 0.25
"""Share of a cell that is eyes or mouth from which it is one of theirs."""


def importance(keep: NDArray[np.bool_], kept: Picture, key: Picture) -> Floats:
    """What an error in each cell weighs, f32 (1, h, w), 1 in the mean over the cells to ``keep`` (h, w): as much as the
    ``kept`` picture (16 h, 16 w, 3) differs from the ``key`` there."""
    height, width = keep.shape
    change = _difference(kept, key)
    cells = change.reshape(height, change.shape[0] // height, width, -1).mean((1, 3), dtype=np.float32)
    mean = float(cells[keep].mean()) if keep.any() else 0.0
    share = (cells + ALIKE * mean + 1e-3) / ((1 + ALIKE) * mean + 1e-3)
    weight = share.clip(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
    return np.asarray(_levelled(weight, keep)[None], np.float32)


def cared_for(weight: Floats, keep: NDArray[np.bool_], attention: Floats, care: float) -> Floats:
    """`importance` (1, h, w) with ``care`` times more weight of eyes and mouth, 1 in the mean again; ``attention``
    (h, w) 0..1 is E's. A mouth is one cell of a hundred, and all that listeners look at."""
    parts = parts_of(attention)
    least = np.maximum(weight[0], (FACE_LEAST * parts).clip(max=1))
    return np.asarray(_levelled(least * (1 + care * parts), keep)[None], np.float32)


def code_weight(
    seen: tuple[NDArray[np.bool_], Picture, Picture, Floats], channels: Floats, care: float, rich_faces: bool
) -> Floats:
    """What an error of each symbol weighs in the quantiser, f32 (C, h, w). ``seen``: cells to keep, kept picture, key,
    attention; ``channels`` (C, 1, 1): what one in each channel costs; ``rich_faces``: from the third channel on only
    cells of eyes and mouth count."""
    keep, kept, key, attention = seen
    weight = cared_for(importance(keep, kept, key), keep, attention, care) * channels
    if rich_faces:
        weight[LEAST_CHANNELS:] *= parts_of(attention) >= FACE_RICH
    return weight


def key_error(matte: NDArray[np.uint8], kept: Picture, key: Picture, attention: Floats, care: float) -> float:
    """Mean absolute difference in grey levels of a key and the kept picture (H, W, 3) where the ``matte`` (H, W) is
    set; 0 where nothing is kept. Eyes and mouth count ``care`` times more: a key shows open eyes, or closed ones, until
    the next."""
    inside = matte[::2, ::2] > 0
    if not inside.any():
        return 0.0
    height, width = attention.shape
    side = inside.shape[0] // height
    difference = _difference(kept, key).sum(2, dtype=np.int16) * inside
    by_cell = difference.reshape(height, side, width, -1).sum((1, 3), dtype=np.float32) / 3
    area = inside.reshape(height, side, width, -1).sum((1, 3), dtype=np.float32)
    weight = 1 + care * parts_of(attention)
    return float((by_cell * weight).sum() / (area * weight).sum())


def parts_of(attention: Floats) -> Floats:
    """How much of each cell is eyes and mouth, 0..1, of E's attention (h, w) to the face and to them."""
    return np.asarray(((attention - FACE_ATTENTION) / (1 - FACE_ATTENTION)).clip(0, 1), np.float32)


def _levelled(weight: Floats, keep: NDArray[np.bool_]) -> Floats:
    """1 in the mean over the cells to keep."""
    return np.asarray(weight / weight[keep].mean() if keep.any() else weight, np.float32)


def _difference(kept: Picture, key: Picture) -> NDArray[np.int16]:
    """Absolute difference in grey levels, on every second pixel each way: enough to compare them by."""
    return np.asarray(np.abs(kept[::2, ::2].astype(np.int16) - key[::2, ::2]), np.int16)

"""Keys that are larger than the code's picture: their small form, and what is fine about them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from streamgc.pipeline.settings import BLANK, SCALE

Picture = NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Brightness of red, green and blue (ITU-R BT.601). Keys carry colour at half their size, so what is fine is
brightness."""

BLANK_ERROR = 8
"""Grey levels that AV1 may have put it off by."""
EVEN, EDGE = 3, 3
"""Pixels of a large key: what is blank is so this far to every side; the mask's edge is seen this far beyond."""


def halved(large: Picture) -> Picture:
    """(2H, 2W, 3) → (H, W, 3): the mean of each 2×2, in integers, so that both sides hold the same key."""
    height, width = large.shape[0] // SCALE, large.shape[1] // SCALE
    blocks = large.reshape(height, SCALE, width, SCALE, -1).astype(np.uint16)
    return np.asarray((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4, np.uint8)


def fine_part(large: Picture) -> NDArray[np.float32]:
    """What the brightness of a picture (2H, 2W, 3) has beyond its small form enlarged again: f32 (1, 1, 2H, 2W) in grey
    levels. Nothing where the key is blank and along the edge of that: the mask's edge is no part of the picture."""
    luma = large @ LUMA
    height, width = luma.shape
    small = luma.reshape(height // SCALE, SCALE, width // SCALE, SCALE).mean((1, 3), dtype=np.float32)
    again = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    fine = np.where(_near_blank(large), np.float32(0), luma - again)
    return np.ascontiguousarray(fine, np.float32)[None, None]


def _near_blank(large: Picture) -> NDArray[np.bool_]:
    """Where a decoded key is evenly blank, and `EDGE` pixels around that."""
    even = (np.abs(large.astype(np.int16) - BLANK).max(-1) <= BLANK_ERROR).astype(np.uint8) * 255
    blank = np.asarray(Image.fromarray(even).filter(ImageFilter.BoxBlur(EVEN))) > 250
    around = Image.fromarray(blank.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(EVEN + EDGE))
    return np.asarray(around) > 0


def doubled(matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A blanking mask (H, W) for a picture twice as large: pixel by pixel, so that none outside it is kept."""
    return np.repeat(np.repeat(matte, SCALE, 0), SCALE, 1)

"""Keys that are larger than the code's picture: their small form, and what is fine about them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
SCALE = 2
"""A large key's side over the code picture's."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Brightness of red, green and blue (ITU-R BT.601)."""


def halved(large: Picture) -> Picture:
    """(2H, 2W, 3) → (H, W, 3): the mean of each 2×2, in integers, so that both sides hold the same key."""
    height, width = large.shape[0] // SCALE, large.shape[1] // SCALE
    blocks = large.reshape(height, SCALE, width, SCALE, -1).astype(np.uint16)
    return np.asarray((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4, np.uint8)


def fine_part(large: Picture) -> NDArray[np.float32]:
    """What the brightness of a picture (2H, 2W, 3) has beyond its small form enlarged again: f32 (1, 1, 2H, 2W) in grey
    levels."""
    luma = large @ LUMA
    height, width = luma.shape
    small = luma.reshape(height // SCALE, SCALE, width // SCALE, SCALE).mean((1, 3), dtype=np.float32)
    again = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(luma - again, np.float32)[None, None]


def doubled(matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A blanking mask (H, W) for a picture twice as large: pixel by pixel, so that none outside it is kept."""
    return np.repeat(np.repeat(matte, SCALE, 0), SCALE, 1)

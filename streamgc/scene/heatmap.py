"""Heatmaps that stand still: soft mattes become the blanking mask and the kept cells, smoothed over time without lag.

Small changes of the matte are averaged over frames (a still person's border does not dance), large ones are taken at
once (a moving hand is never late). A pixel and a cell each need more to appear than to stay.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streamgc.scene.instances import CELL, Instances, grid_of
from streamgc.scene.labels import LABEL_COUNT, Label
from streamgc.scene.policy import Selection

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class HeatmapSettings:
    """margin: pixels (Chebyshev) by which the mask grows beyond the matte. rise, fall: matte values 0..255 from which a
    pixel appears and below which it goes. cell_on, cell_off: share of a cell's pixels from which it is kept and below
    which it is no longer. cell_patience: frames a cell must stay below before it goes. calm: changes of the matte below
    this are averaged. memory: weight of the past in that."""

    margin: int = 3
    rise: int = 112
    fall: int = 72
    cell_on: float = 0.06
    cell_off: float = 0.015
    cell_patience: int = 4
    calm: int = 80
    memory: float = 0.7


class Kept(NamedTuple):
    """What a frame of (H, W) pixels keeps.

    matte: the blanking mask u8 (H, W), 255 = kept, margin included, nothing outside kept cells. alpha: the soft matte
    u8 (H, W) of the kept instances, without margin. cells: bool (h, w), the heatmap m. labels: u8 (h, w), the label map
    s. instances: all that were found. strength: 1, or less while what was kept last fades out because nobody was found.
    """

    matte: Mask
    alpha: Mask
    cells: npt.NDArray[np.bool_]
    labels: Mask
    instances: Instances
    strength: float


def dilate(mask: npt.NDArray[np.bool_], margin: int) -> npt.NDArray[np.bool_]:
    """Pixels within `margin` (Chebyshev distance) of a set one, in log(margin) shifts an axis."""
    grown = mask
    for axis in (0, 1):
        reach = 0
        while reach < margin:
            step = min(max(1, reach), margin - reach)
            wider = grown.copy()
            ahead, behind = (slice(step, None), slice(None, -step))
            if step < grown.shape[axis]:
                if axis == 0:
                    wider[ahead] |= grown[behind]
                    wider[behind] |= grown[ahead]
                else:
                    wider[:, ahead] |= grown[:, behind]
                    wider[:, behind] |= grown[:, ahead]
            else:
                wider |= grown.any(axis=axis, keepdims=True)
            grown = wider
            reach += step
    return grown


def cell_shares(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Share f32 (h, w) of set pixels in each cell of a mask (H, W); cells cut by the border count their whole area."""
    height, width = mask.shape
    rows, columns = grid_of(height, width)
    if (rows * CELL, columns * CELL) != (height, width):
        mask = np.pad(mask, ((0, rows * CELL - height), (0, columns * CELL - width)))
    # Sixteen booleans a row of a cell are two 64-bit words: adding words adds eight pixels at a time (each lane stays
    # below 256).
    words = np.ascontiguousarray(mask).view(np.uint64).reshape(rows, CELL, columns, 2)
    lanes = words.sum(axis=(1, 3)).view(np.uint8).reshape(rows, columns, 8)
    return np.asarray(lanes.sum(axis=2, dtype=np.uint16) / np.float32(CELL * CELL), np.float32)


def spread_cells(cells: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Cells (h, w) as a mask of pixels (height, width)."""
    return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)[:height, :width]


class Heatmap:
    """Turns selections into `Kept`, frame by frame; a change of frame size starts anew."""

    def __init__(self, settings: HeatmapSettings | None = None) -> None:
        self.settings = settings or HeatmapSettings()
        self._alpha: npt.NDArray[np.int16] | None = None
        self._pixels: npt.NDArray[np.bool_] | None = None
        self._cells: npt.NDArray[np.bool_] | None = None
        self._absent: npt.NDArray[np.int16] | None = None
        self._labels: Mask | None = None
        self._label_age: npt.NDArray[np.int16] | None = None

    def reset(self) -> None:
        """Forget the past: after a cut, a jump of the crop, or a switch to a stricter background mode."""
        self._alpha = self._pixels = self._cells = self._absent = self._labels = self._label_age = None

    def update(self, instances: Instances, selection: Selection) -> Kept:
        """What this frame keeps; `selection` is for these instances."""
        height, width = instances.size
        if self._alpha is not None and self._alpha.shape != (height, width):
            self.reset()
        alpha = self._smooth(instances, selection)
        pixels = self._appear(alpha)
        shown = dilate(pixels, self.settings.margin)
        cells = self._settle(cell_shares(shown))
        if selection.strength <= 0:
            cells = np.zeros_like(cells)
        self._cells = cells
        matte = (shown & spread_cells(cells, height, width)).view(np.uint8) * np.uint8(255)
        soft = np.minimum(alpha.astype(np.uint8), matte)
        return Kept(matte, soft, cells, self._settle_labels(instances, cells), instances, selection.strength)

    def _smooth(self, instances: Instances, selection: Selection) -> npt.NDArray[np.int16]:
        chosen = instances.masks[selection.kept]
        past = self._alpha
        if len(chosen):
            now = np.asarray(chosen[0] if len(chosen) == 1 else chosen.max(axis=0), np.int16)
            if past is not None:
                change = now - past
                small = np.abs(change) < self.settings.calm
                now = np.where(small, past + (change * np.float32(1 - self.settings.memory)).astype(np.int16), now)
            self._alpha = now
            return now
        if past is None or selection.strength <= 0:
            self._alpha = np.zeros(instances.size, np.int16)
            return self._alpha
        # Held or fading: the memory itself stays whole, so that a person who comes back is matched against it.
        return np.asarray(past * np.float32(selection.strength), np.int16)

    def _appear(self, alpha: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        pixels = alpha >= self.settings.rise
        if self._pixels is not None:
            pixels |= self._pixels & (alpha >= self.settings.fall)
        self._pixels = pixels
        return pixels

    def _settle(self, shares: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        settings = self.settings
        cells = shares >= settings.cell_on
        if self._cells is None or self._absent is None:
            self._absent = np.zeros(shares.shape, np.int16)
            return cells
        low = self._cells & ~cells
        self._absent = np.where(low, np.minimum(self._absent, settings.cell_patience) + 1, 0).astype(np.int16)
        # Between the two thresholds a kept cell stays; below the lower one it must be so for a while.
        stay = low & ((shares >= settings.cell_off) | (self._absent < settings.cell_patience))
        return cells | stay

    def _settle_labels(self, instances: Instances, cells: npt.NDArray[np.bool_]) -> Mask:
        """A label changes when it has been another one for ten frames; people are where they are now."""
        now = instances.labels
        if self._labels is None or self._label_age is None or self._labels.shape != now.shape:
            self._labels = now.copy()
            self._label_age = np.zeros(now.shape, np.int16)
        self._label_age = np.where(now == self._labels, 0, self._label_age + 1).astype(np.int16)
        changed = (self._label_age >= 10) | ((self._labels == Label.PERSON) & (now != Label.PERSON))
        self._labels = np.where(changed, now, self._labels).astype(np.uint8)
        self._label_age[changed] = 0
        labels = np.minimum(self._labels, LABEL_COUNT - 1)
        labels[cells] = Label.PERSON
        return labels

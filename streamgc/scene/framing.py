"""Auto-framing: a crop of the camera's picture that follows the kept people, smoothly and seldom.

The rule: the picture that is coded has its own aspect, and the crop always has that aspect and lies inside the source –
nothing is padded. With framing off, or nobody there, it is the largest such crop, in the middle. Landscape sources thus
give their middle square to a square code, portrait sources the upper part where heads are. A crop moves only when
someone is about to leave it or it has become far too large; then it glides to its new place and rests. A camera that
moves looks like people who move: the crop follows them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from streamgc.errors import InputError

Picture = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]


class Crop(NamedTuple):
    """A rectangle of the source in whole pixels: left, top, width, height."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, picture: Picture, height: int, width: int) -> Picture:
        """The crop of a picture u8 (H, W, 3) or (H, W), resized to (height, width)."""
        part = picture[self.top : self.top + self.height, self.left : self.left + self.width]
        if part.shape[:2] == (height, width):
            return np.ascontiguousarray(part)
        image = Image.fromarray(np.ascontiguousarray(part))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0), np.uint8)

    def paste(self, coded: Picture, source: Picture) -> Picture:
        """A copy of the source with the coded picture (or plane) put back where it was cut."""
        image = Image.fromarray(coded).resize((self.width, self.height), Image.Resampling.BILINEAR)
        result = source.copy()
        result[self.top : self.top + self.height, self.left : self.left + self.width] = np.asarray(image)
        return result

    def to_source(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Boxes (N, 4) of the coded picture (height, width) in the source's pixels."""
        scale = np.array([self.width / width, self.height / height] * 2, np.float32)
        return np.asarray(boxes * scale + np.array([self.left, self.top] * 2, np.float32), np.float32)

    def to_coded(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Boxes (N, 4) of the source in the pixels of the coded picture (height, width); may reach beyond it."""
        scale = np.array([width / self.width, height / self.height] * 2, np.float32)
        return np.asarray((boxes - np.array([self.left, self.top] * 2, np.float32)) * scale, np.float32)


@dataclass(frozen=True)
class FramingSettings:
    """How a crop follows.

    enabled: off gives the largest crop, always. room: space around the people as a share of their box, above twice as
    much as below. slack: the crop rests while it is larger than wanted by less than this factor. tightest: smallest
    crop as a share of the largest. glide: share of the remaining way covered a frame. patience: frames a smaller crop
    must be wanted before it moves; a person about to be cut off is answered at once.
    """

    enabled: bool = True
    room: float = 0.12
    slack: float = 1.25
    tightest: float = 0.4
    glide: float = 0.12
    patience: int = 45


def largest_crop(source: tuple[int, int], coded: tuple[int, int]) -> Crop:
    """The largest crop of a source (H, W) with the coded picture's aspect: in the middle across, in the upper third
    down."""
    height, width = source
    aspect = coded[1] / coded[0]
    wide, tall = (width, round(width / aspect)) if width / height < aspect else (round(height * aspect), height)
    wide, tall = min(wide, width), min(tall, height)
    return Crop((width - wide) // 2, (height - tall) // 3, wide, tall)


class Framer:
    """Follows people with a crop; `update` once a frame, with boxes in the source's pixels."""

    def __init__(self, coded: tuple[int, int], settings: FramingSettings | None = None) -> None:
        if min(coded) < 16:
            raise InputError(f"the coded picture must be at least 16 pixels a side, not {coded[1]}x{coded[0]}")
        self.coded = coded
        self.settings = settings or FramingSettings()
        self._source: tuple[int, int] | None = None
        self._now = np.zeros(3)
        self._goal: npt.NDArray[np.float64] | None = None
        self._wanted_smaller = 0

    def current(self, source: tuple[int, int]) -> Crop:
        """The crop for the next picture of a source of (H, W) pixels; a new size starts with the largest."""
        if source != self._source:
            if min(source) < 16:
                raise InputError(f"a picture of {source[1]}x{source[0]} pixels is too small")
            self._source = source
            whole = largest_crop(source, self.coded)
            self._now = np.array([whole.left + whole.width / 2, whole.top + whole.height / 2, float(whole.width)])
            self._goal, self._wanted_smaller = None, 0
        return self._crop(self._now)

    def update(self, boxes: Boxes, source: tuple[int, int]) -> Crop:
        """Take in where the kept people are, f32 (N, 4), and return the crop for the next picture."""
        crop = self.current(source)
        if not self.settings.enabled:
            return crop
        wanted = self._wanted(boxes, source)
        if self._goal is None:
            self._goal = self._decide(wanted, boxes, crop)
        else:
            if self._cut_off(boxes, self._crop(self._goal)):
                self._goal = wanted
            self._now = self._now + (self._goal - self._now) * self.settings.glide
            if np.abs(self._goal - self._now).max() < 0.004 * crop.width + 0.5:
                self._now, self._goal = self._goal, None
        return self._crop(self._now)

    def _wanted(self, boxes: Boxes, source: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Centre x, centre y and width of the ideal crop."""
        whole = largest_crop(source, self.coded)
        if not len(boxes):
            return np.array([whole.left + whole.width / 2, whole.top + whole.height / 2, float(whole.width)])
        x0, y0 = (float(v) for v in boxes[:, :2].min(axis=0))
        x1, y1 = (float(v) for v in boxes[:, 2:].max(axis=0))
        around, aspect = self.settings.room, self.coded[1] / self.coded[0]
        wide, tall = (x1 - x0) * (1 + 2 * around), (y1 - y0) * (1 + 3 * around)
        width = float(np.clip(max(wide, tall * aspect), self.settings.tightest * whole.width, whole.width))
        height = width / aspect
        # Spare height goes below a head, not above it: the top of the crop is a little above the highest head.
        top = y0 - 2 * around * (y1 - y0) if tall <= height else y0 - 0.1 * height
        x, y = (x0 + x1) / 2, top + height / 2
        x = float(np.clip(x, width / 2, source[1] - width / 2))
        y = float(np.clip(y, height / 2, source[0] - height / 2))
        return np.array([x, y, width])

    def _decide(self, wanted: npt.NDArray[np.float64], boxes: Boxes, crop: Crop) -> npt.NDArray[np.float64] | None:
        """A new goal when someone is being cut off, or a smaller crop has been wanted for long; None to rest."""
        larger = wanted[2] > 1.02 * crop.width
        moved = np.abs(wanted[:2] - self._now[:2]).max() > 0.03 * crop.width
        if self._cut_off(boxes, crop) and (larger or moved):
            self._wanted_smaller = 0
            return wanted
        loose = crop.width > self.settings.slack * wanted[2] or (len(boxes) == 0 and larger)
        self._wanted_smaller = self._wanted_smaller + 1 if loose else 0
        if self._wanted_smaller >= self.settings.patience:
            self._wanted_smaller = 0
            return wanted
        return None

    @staticmethod
    def _cut_off(boxes: Boxes, crop: Crop) -> bool:
        """Whether someone reaches the left, right or upper edge of the crop (the lower edge cuts bodies as it
        should)."""
        if not len(boxes):
            return False
        near = 0.015 * crop.width
        left, top = boxes[:, 0].min() < crop.left + near, boxes[:, 1].min() < crop.top + near
        return bool(left or top or boxes[:, 2].max() > crop.left + crop.width - near)

    def _crop(self, state: npt.NDArray[np.float64]) -> Crop:
        assert self._source is not None
        height, width = self._source
        whole = largest_crop(self._source, self.coded)
        wide = int(np.clip(round(float(state[2])), 1, whole.width))
        tall = int(np.clip(round(wide * self.coded[0] / self.coded[1]), 1, whole.height))
        left = int(np.clip(round(float(state[0]) - wide / 2), 0, width - wide))
        top = int(np.clip(round(float(state[1]) - tall / 2), 0, height - tall))
        return Crop(left, top, wide, tall)

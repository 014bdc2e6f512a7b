"""The empty room of the ``memory`` background: collected where nobody is, sent as a small AV1 still, seldom renewed."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.still import encode_still
from streamgc.pipeline.looking import View
from streamgc.pipeline.settings import PictureFormat

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating]
SAMPLE_SECONDS = 0.5
SAMPLES = 7
"""Pictures in the median: a pixel has been steady for 3 s when it is in the first and the last of them."""
STEADY = 12
"""Largest range of a steady pixel's grey value over the samples."""
ROOM_BYTES = 2000
QUALITIES = (45, 52, 58, 63)
"""CRF values tried in turn until the room is small enough."""
MARGIN = 3
"""Pixels around what is kept, which has a margin itself, that count as person. With more, what is behind somebody who
sits still is a blur as far as it reaches; that the mask flickers does not matter, since a pixel must be seen and steady
for three seconds."""
FAINT = 32
"""Value of a mask from which a pixel may be of somebody."""
MARGIN_OF_OTHERS = 6
"""Pixels around people who are not kept: the blanking's own margin and `MARGIN`."""
CHANGED = 0.15
"""Share of known pixels that must have changed, or become known, before the room is sent again."""


class Room(NamedTuple):
    """A room on its way."""

    number: int  # modulo 16
    data: bytes


class RoomCollector:
    """Remembers the room behind the people. Pixels never seen are filled in smoothly from those around.

    Coding a room takes a fifth of a second. With an ``executor`` that is done beside the call, and the room is given a
    few pictures later; without one at once, so that the same pictures always make the same messages.
    """

    def __init__(self, picture_format: PictureFormat, fps: float, executor: Executor | None = None) -> None:
        shape = (SAMPLES, picture_format.height, picture_format.width)
        self._every = max(1, round(fps * SAMPLE_SECONDS))
        self._colours = np.zeros((*shape, 3), np.uint8)
        self._seen = np.zeros(shape, bool)
        self._room = np.zeros((*shape[1:], 3), np.uint8)
        self._known = np.zeros(shape[1:], bool)
        self._sent: Picture | None = None
        self._sent_known = np.zeros(shape[1:], bool)
        self._count = self._number = 0
        self._executor = executor
        self._coding: Future[bytes | None] | None = None

    def clear(self) -> None:
        """Forget everything: the room is no longer to be sent."""
        self._seen[:] = False
        self._known[:] = False
        self._sent = None
        self._coding = None  # what is being coded must not be sent any more

    def offer_again(self) -> None:
        """The receiver may have lost the room."""
        self._sent = None

    def see(self, view: View) -> Room | None:
        """Take a picture in; a room to send when it is the first or differs enough from the last."""
        self._count += 1
        if self._coding is not None and self._coding.done():
            data, self._coding = self._coding.result(), None
            return self._numbered(data)
        if self._count % self._every:
            return None
        slot = self._count // self._every % SAMPLES
        self._colours[slot] = view.picture
        self._seen[slot] = ~_grown(view.matte > 0, MARGIN)
        if view.somebody is not None:  # who is not kept must not stay behind as a part of the room
            self._seen[slot] &= ~_grown(view.somebody >= FAINT, MARGIN_OF_OTHERS)
        if self._count // self._every < SAMPLES:
            return None
        grey = self._colours[..., 1].astype(np.int16)
        steady = self._seen.all(0) & (grey.max(0) - grey.min(0) <= STEADY)
        self._room[steady] = np.median(self._colours[:, steady], axis=0).astype(np.uint8)
        self._known |= steady
        return self._changed_enough()

    def _changed_enough(self) -> Room | None:
        if self._known.mean() < 0.02 or self._coding is not None:
            return None
        if self._sent is not None:
            far = np.abs(self._room.astype(np.int16) - self._sent).max(-1) > 3 * STEADY
            if (self._known & (far | ~self._sent_known)).mean() < CHANGED:
                return None
        self._sent, self._sent_known = self._room.copy(), self._known.copy()
        if self._executor is None:
            return self._numbered(code_room(self._sent, self._sent_known))
        self._coding = self._executor.submit(code_room, self._sent, self._sent_known)
        return None

    def _numbered(self, data: bytes | None) -> Room | None:
        if data is None:
            return None
        self._number = (self._number + 1) % 16
        return Room(self._number, data)


def code_room(room: Picture, known: NDArray[np.bool_]) -> bytes | None:
    """The room, filled where it is not known, as an AV1 still of at most `ROOM_BYTES`; None where none is so small."""
    filled = fill_smoothly(room, known)
    for quality in QUALITIES:
        data = encode_still(filled, crf=quality)
        if len(data) <= ROOM_BYTES:
            return data
    return None


def fill_smoothly(picture: Picture, known: NDArray[np.bool_]) -> Picture:
    """Fill unknown pixels of (H, W, 3) by averages of ever larger neighbourhoods of known ones."""
    levels: list[tuple[Floats, Floats]] = [(picture.astype(np.float32) * known[..., None], known.astype(np.float32))]
    while min(levels[-1][1].shape) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    colour, weight = levels[-1]
    filled = colour / np.maximum(weight, 1e-6)[..., None]
    for colour, weight in reversed(levels[:-1]):
        height, width = weight.shape
        coarse = _softened(filled.repeat(2, 0).repeat(2, 1)[:height, :width])
        filled = np.where(weight[..., None] > 0, colour / np.maximum(weight, 1e-6)[..., None], coarse)
    return filled.round().astype(np.uint8)


def _softened(array: Floats) -> Floats:
    """A 1-2-1 average both ways, so that no blocks are seen."""
    for axis in (0, 1):
        pad = [(1, 1) if a == axis else (0, 0) for a in range(array.ndim)]
        padded = np.pad(array, pad, mode="edge")
        length = array.shape[axis]
        before, here, after = (np.take(padded, range(i, i + length), axis) for i in range(3))
        array = (before + 2 * here + after) / 4
    return array


def _halved(array: Floats) -> Floats:
    """Sums of 2×2 blocks, odd edges repeated as zeros."""
    pad = [(0, array.shape[0] % 2), (0, array.shape[1] % 2)] + [(0, 0)] * (array.ndim - 2)
    padded = np.pad(array, pad)
    height, width = padded.shape[:2]
    return np.asarray(padded.reshape(height // 2, 2, width // 2, 2, *padded.shape[2:]).sum((1, 3)))


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Dilation by a square of ``pixels`` on each side, by running sums."""
    grown = mask
    for axis in (0, 1):
        pad = [(pixels + 1, pixels) if a == axis else (0, 0) for a in (0, 1)]
        sums = np.cumsum(np.pad(grown, pad), axis=axis, dtype=np.int32)
        span = 2 * pixels + 1
        grown = (
            np.take(sums, range(span, sums.shape[axis]), axis) - np.take(sums, range(sums.shape[axis] - span), axis)
        ) > 0
    return grown

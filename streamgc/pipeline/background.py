"""What the receiver shows where nobody is: the remembered room, G's room, or a picture of its own choice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.labels import decode_labels
from streamgc.codec.message import Background
from streamgc.codec.still import decode_still, resize
from streamgc.pipeline.settings import PictureFormat
from streamgc.scene.labels import Label

Picture = NDArray[np.uint8]
RoomNetwork = Callable[[NDArray[np.uint8], int], Picture]
"""Labels (h, w) and a style seed to a room (H, W, 3)."""
SEAM = 2
"""Pixels of the room around the person that come from G: the blanking mask's margin has one more, which the blank
beyond it has coloured."""
SEAM_SHARE = 3
"""Of that one pixel a part in so many is shown, or the seam would have an edge."""
CRISP = (np.clip(np.arange(256) / 255 - 0.05, 0, 0.35) / 0.35 * 255 + 0.5).astype(np.uint8)
"""Alpha as it is shown: nothing below 5 %, all from 40 % on."""


class BackgroundKeeper:
    """Holds the current background picture of each mode; everything is computed once and kept."""

    def __init__(
        self, picture_format: PictureFormat, room_network: RoomNetwork, seed: int = 0, own: Picture | None = None
    ) -> None:
        """``own``: the receiver's picture for ``replace``; without one, a quiet gradient."""
        self._format = picture_format
        self._network = room_network
        self._seed = seed
        self._own = None if own is None else resize(own, picture_format.width, picture_format.height)
        self._remembered: Picture | None = None
        self._labels: NDArray[np.uint8] | None = None
        self._imagined: Picture | None = None
        self._synthesised: Picture | None = None
        self._enlarged: tuple[Picture, Picture] | None = None  # a room, and the same larger

    @property
    def remembers(self) -> bool:
        """Whether the sender's room is here."""
        return self._remembered is not None

    def room(self, data: bytes) -> None:
        """The sender's room. Raises BitstreamError."""
        self._remembered = decode_still(data, self._format.width, self._format.height)

    def labels(self, data: bytes) -> None:
        """The sender's label map. Raises BitstreamError."""
        self._labels = decode_labels(data, self._format.grid, self._labels)
        self._synthesised = None

    def forget(self) -> None:
        """Drop what came from the sender: it has chosen a stricter mode."""
        self._remembered = self._labels = self._synthesised = self._enlarged = None

    def picture(self, mode: Background, scale: int = 1) -> Picture:
        """(H, W, 3) to put behind the person, or ``scale`` times as large."""
        room = self._room(mode)
        if scale == 1:
            return room
        if self._enlarged is None or self._enlarged[0] is not room:
            self._enlarged = room, resize(room, scale * room.shape[1], scale * room.shape[0])
        return self._enlarged[1]

    def _room(self, mode: Background) -> Picture:
        if mode is Background.REPLACE:
            return self._replacement()
        if mode is Background.MEMORY and self._remembered is not None:
            return self._remembered
        if mode is Background.SYNTH and self._labels is not None:
            if self._synthesised is None:
                self._synthesised = self._network(self._labels, self._seed)
            return self._synthesised
        if self._imagined is None:
            self._imagined = self._network(np.full(self._format.grid, int(Label.ROOM), np.uint8), self._seed)
        return self._imagined

    def _replacement(self) -> Picture:
        if self._own is None:
            rows = np.linspace(70, 40, self._format.height)[:, None, None]
            tint = np.array([0.9, 1.0, 1.15])
            self._own = np.broadcast_to(rows * tint, (self._format.height, self._format.width, 3)).astype(np.uint8)
        return self._own


def composite(person: NDArray[np.uint8], background: Picture) -> Picture:
    """Person RGB + alpha (H, W, 4) over a background (H, W, 3), in integers."""
    return blend(person, person[..., 3], background)


def blend(person: NDArray[np.uint8], alpha: NDArray[np.uint8], background: Picture) -> Picture:
    """``person`` (H, W, 3 or more) over ``background`` (H, W, 3) by ``alpha`` (H, W), rounded.

    Almost every pixel is one or the other: those are chosen, a plane at a time, and only the edge is mixed.
    """
    opaque = alpha == 255
    mixed = np.empty_like(background)
    for channel in range(3):
        mixed[..., channel] = np.where(opaque, person[..., channel], background[..., channel])
    edge = np.flatnonzero((alpha > 0) & ~opaque)
    if edge.size:
        share = alpha.reshape(-1)[edge, None].astype(np.uint16)
        over = person.reshape(-1, person.shape[-1])[edge, :3] * share
        under = background.reshape(-1, 3)[edge] * (255 - share)
        mixed.reshape(-1, 3)[edge] = (over + under + 127) // 255
    return mixed


def over_room(person: NDArray[np.uint8], background: Picture, real: bool, scale: int = 1) -> Picture:
    """The person as a call shows it: G's alpha made crisp, and before the ``real`` room grown by `SEAM` pixels of the
    code's picture, which is ``scale`` times smaller.

    G's alpha is unsure along the edge, and what is unsure would show the background through hair and shoulders. Around
    the person G has painted the room itself, as far as the blanking mask's margin goes: before the real room that rim
    hides the seam; before another one it would be a halo.
    """
    alpha = person[..., 3]
    if real:
        alpha = grow(alpha, scale * SEAM)
        alpha = np.maximum(CRISP.take(alpha), CRISP.take(grow(alpha, scale)) // SEAM_SHARE)
    else:
        alpha = CRISP.take(alpha)
    return blend(person, alpha, background)


def grow(alpha: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """The largest value (H, W) within a square of ``pixels`` to every side."""
    for axis in (0, 1):
        wide = alpha.copy()
        for step in range(1, pixels + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            np.maximum(wide[tuple(behind)], alpha[tuple(ahead)], out=wide[tuple(behind)])
            np.maximum(wide[tuple(ahead)], alpha[tuple(behind)], out=wide[tuple(ahead)])
        alpha = wide
    return alpha

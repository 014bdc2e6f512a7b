"""Messages as the call's sender makes them, without pictures and networks: the real division of the rate and the real
long objects, with sizes recorded of the packaged clip.

Recorded with `streamgc.pipeline.offline.encode_pictures`, 256², 15 pictures a second, 24 kbit/s, 8 channels, at a λ
of `RECORDED_STRENGTH`: the person moves all the time, so every key has aged as soon as another can be afforded.
"""

import itertools
from typing import NamedTuple

from streamgc.codec.message import Background, Kind, Message, unpack
from streamgc.codec.sections import Feedback, PartKind, pack_feedback, parse_feedback
from streamgc.codec.symbols import MIXED
from streamgc.pipeline.budget import SLICE_BYTES, Budget
from streamgc.pipeline.objects import KEY_NUMBERS, ObjectReceiver, ObjectSender

CODE_BYTES = (
    105, 84, 107, 79, 66, 57, 55, 41, 38, 34, 31, 34, 64, 97, 144, 158, 70, 194, 255, 212, 165, 143, 156, 141, 120, 112,
    80, 106, 109, 118, 145, 131, 68, 32, 51, 62, 51, 46, 54, 45, 39, 44, 64, 117, 142, 127, 111, 90, 55, 45, 71, 66, 51,
    48, 73, 61, 77, 64, 97, 78, 79, 38, 41, 55, 47, 99, 81, 59, 33, 100, 133, 92, 39, 36, 65, 87, 142, 149, 97, 92, 58,
    47, 48, 59, 93, 63, 44, 45, 33, 77, 127, 134, 114, 95, 91, 85, 124, 141, 160, 152, 162, 173, 191, 249, 210, 113, 71,
)  # fmt: skip
"""Of the codes of pictures that follow each other."""

RECORDED_STRENGTH = 0.02
FALL = 0.43
"""Codes shrink with λ to the power of minus this (fitted to runs at 9 and 10 kbit/s), and"""

LAYOUT_PART = {2: 0.32, 4: 0.56, 8: 1.0, MIXED: 0.68}
"""with the channels (runs at 3, 5 and 7; mixed at 5, 10 and 24)."""

COARSE_BYTES, FIRST_KEY_BYTES, ROOM_BYTES, ROOM_AT = 380, 3900, 760, 55
KEY_BYTES = (684, 735, 1091, 1448, 1181, 446, 1496, 768, 685, 509, 1000, 641, 850, 410, 1317, 914, 645, 953, 607, 1121)
"""Of keys that follow another."""


class Made(NamedTuple):
    """A message, and what of it is worth repeating."""

    message: bytes
    repeat: bytes


class StandInSender:
    """Decides as `pipeline.sender.Sender` does."""

    def __init__(self, kbps: float, fps: float) -> None:
        self.budget = Budget(kbps, fps)
        self.keys: list[tuple[int, int]] = []  # number of the picture, bytes
        self._objects = ObjectSender()
        self._sizes = itertools.cycle(KEY_BYTES)
        self._next, self._begun = 0, False
        self._confirmed: int | None = None
        self._chained = False  # the receiver holds more than the coarse key

    def feedback(self, data: bytes) -> None:
        """Take what `StandInReceiver.receive` said."""
        feedback, held = parse_feedback(data)
        self._objects.confirm(held)
        if feedback.key is not None and feedback.key != self._confirmed:
            self._chained = self._confirmed is not None or feedback.key != 0
            self._confirmed = feedback.key
            self._objects.complete(PartKind.KEY, feedback.key)
            self._objects.complete(PartKind.COARSE_KEY, feedback.key)

    def encode(self, number: int) -> Made:
        """The message of a picture."""
        budget, objects, starting = self.budget, self._objects, not self._chained
        self._choose_key(number)
        if number == ROOM_AT:
            objects.add(PartKind.ROOM, 1, bytes(ROOM_BYTES), SLICE_BYTES)
        size = CODE_BYTES[number % len(CODE_BYTES)] * LAYOUT_PART[budget.shares.layout]
        code = max(2, round(size * (budget.strength / RECORDED_STRENGTH) ** -FALL))
        again = not objects.unsent(PartKind.KEY)
        key = objects.unconfirmed(PartKind.KEY)
        room = budget.start_bytes(again) if starting else budget.object_bytes(code, key)
        parts = tuple(objects.take(room, number, budget.narrow, budget.burst_bytes(code, again=starting and again)))
        layout, picture = budget.shares.layout, bytes(code)
        message = Message(Kind.PICTURE, number % 256, Background.MEMORY, layout=layout, picture=picture, parts=parts)
        data = message.pack()
        budget.coded(code)
        budget.spent(len(data), sum(len(part.payload) for part in parts), starting)
        return Made(data, message.essential().pack())

    def _choose_key(self, number: int) -> None:
        objects = self._objects
        if not self._begun:
            self._begun = True
            self._add(PartKind.COARSE_KEY, COARSE_BYTES, COARSE_BYTES)
        elif not self.keys:
            self.keys.append((number, FIRST_KEY_BYTES))
            self._add(PartKind.KEY, FIRST_KEY_BYTES, SLICE_BYTES)
        elif not (objects.pending(PartKind.KEY) or objects.pending(PartKind.COARSE_KEY)) and self.budget.affords_key:
            size = next(self._sizes)
            self.keys.append((number, size))
            self._add(PartKind.KEY, size, self.budget.slice_bytes)
            self.budget.key_made(size)

    def _add(self, kind: PartKind, size: int, slice_bytes: int) -> None:
        self._objects.add(kind, self._next, bytes(size), slice_bytes)
        self._next = (self._next + 1) % KEY_NUMBERS


class StandInReceiver:
    """Puts long objects together, and says what it holds."""

    def __init__(self) -> None:
        self.completed = 0  # keys
        self._objects = ObjectReceiver()
        self._newest_key: int | None = None

    def receive(self, data: bytes) -> tuple[bytes, bool]:
        """The feedback after a message, and whether it is urgent."""
        message = unpack(data)
        urgent = False
        for part in message.parts:
            done = self._objects.accept(part)
            if done is not None and done.kind in (PartKind.KEY, PartKind.COARSE_KEY):
                urgent, self._newest_key = True, done.number
                self.completed += done.kind is PartKind.KEY
        return pack_feedback(Feedback(message.number, 0, self._newest_key), self._objects.held()), urgent

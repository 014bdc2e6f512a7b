"""A picture in, one message out: what the sending side of a call does with each frame."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.code import encode_code
from streamgc.codec.labels import encode_labels
from streamgc.codec.message import Background, Kind, Message
from streamgc.codec.quantise import quantise
from streamgc.codec.sections import Crop, Part, PartKind, parse_feedback
from streamgc.codec.still import resize
from streamgc.codec.symbols import MAX_CHANNELS, MIXED, Code
from streamgc.codec.tables import Tables
from streamgc.pipeline.alignment import Aligned
from streamgc.pipeline.budget import PACKET_BYTES, SLICE_BYTES, Budget, Shares
from streamgc.pipeline.detail import doubled
from streamgc.pipeline.faces import FaceReader, FaceWatcher
from streamgc.pipeline.history import History, unwrap
from streamgc.pipeline.importance import code_weight, key_error
from streamgc.pipeline.keys import ChainStart, Key, KeySource, start_chain
from streamgc.pipeline.looking import Eyes, View
from streamgc.pipeline.networks import EncoderNetwork
from streamgc.pipeline.news import Change, News, unseen
from streamgc.pipeline.objects import ObjectSender
from streamgc.pipeline.room import RoomCollector
from streamgc.pipeline.settings import BLANK, SCALE, SenderSettings
from streamgc.profiling.spans import Spans

Picture = NDArray[np.uint8]
NEW_KEY_RATIO, NEW_KEY_OFFSET = 1.25, 0.3
"""A new key is worth its bytes when the key's error against the kept picture (`importance.key_error`) has grown by this
factor and so many grey levels since the key was made: the error of its coding is no reason for another."""
OTHER_KEY_RATIO = 0.95
"""Another key is taken up when its error is below this share of that of the key in use: whoever turns and turns back is
shown with the key of before, for no bits but those of a code without reference."""
UNSEEN_WEIGHT = 5.0
"""What a key does not show at all counts so many times as much as other differences: it would vanish whenever a key
from before it came is nearer for the rest."""
LABELS_CHANGED = 0.08
"""Share of cells with another label above which the map is sent again."""
FINE_CRF = 9
"""Keys of twice the width and height are coded so much coarser: what they lose is less than what a small one lacks."""
BEHIND = 112
"""Reports are of messages that have been sent: of the numbers that repeat after 256, one of the last 240 is meant."""
CROP_REPEAT = 15
"""Frames after which the crop is said again, for a receiver that missed it."""


class Sent(NamedTuple):
    """What became of a picture."""

    message: bytes
    repeat: bytes  # the part of the message worth repeating in later packets
    number: int
    kept: Picture  # the blanked picture: all that the message was made from
    code_bytes: int
    object_bytes: int
    people: int = 0  # kept
    people_found: int = 0
    kept_strength: float = 1.0  # see looking.View


class _Seen(NamedTuple):
    """A picture to be coded."""

    view: View
    kept: Picture
    attention: NDArray[np.float32]  # to the picture before
    care: float  # of eyes and mouth

    def error(self, key: Key) -> float:
        """How far a key is from the picture, see `importance.key_error`."""
        return key_error(self.view.matte, self.kept, key.picture, self.attention, self.care)

    def unseen(self, key: Key) -> NDArray[np.float32]:
        """What a key does not show, see `news.unseen`."""
        return unseen(self.kept, key.picture, self.view.keep)


class _Beginning(NamedTuple):
    """A chain that is begun beside the call, and what its first key shows."""

    start: Future[ChainStart]
    seen: _Seen


class _Fit(NamedTuple):
    """How well a key fits a picture."""

    key: Key
    error: float  # see `importance.key_error`
    unseen: NDArray[np.float32]  # what the key does not show, see `news.unseen`

    def distance(self, view: View) -> float:
        """The error, and what no motion makes good weighs more."""
        return self.error + UNSEEN_WEIGHT * float(self.unseen.sum()) / max(1, int(view.keep.sum()))


class Sender:
    """Encodes pictures. ``encode`` runs on one worker thread; feedback and requests may come from another."""

    def __init__(
        self,
        settings: SenderSettings,
        eyes: Eyes,
        encoder: EncoderNetwork,
        tables: Tables,
        spans: Spans | None = None,
        shares: Shares | None = None,
        executor: Executor | None = None,
        faces: FaceReader | None = None,
    ) -> None:
        """``executor`` does beside the call what would hold up a picture: the room, see `RoomCollector`, and the first
        key of a chain, which is then sent a picture or two later. Without one the same pictures always make the same
        messages. ``faces``: what eyes and mouth do is said by itself; None: by the code alone."""
        self.settings = settings
        self._eyes, self._encoder, self._tables = eyes, encoder, tables
        self._face = None if faces is None else FaceWatcher(faces)
        self._spans = Spans(enabled=False) if spans is None else spans
        self._budget = Budget(settings.kbps, settings.fps, shares)
        self._keys = KeySource(settings.format, self._budget.shares.crf + (FINE_CRF if settings.fine else 0))
        self._objects = ObjectSender()
        self._history = History()
        self._confirmed: set[int] = set()
        self._executor = executor
        self._beginning: _Beginning | None = None
        self._news = News()
        self._room = RoomCollector(settings.format, settings.fps, executor)
        self._labels: NDArray[np.uint8] | None = None
        self._label_number = 0
        self._crop: tuple[int, int, int] | None = None
        self._crop_age = 0
        self._number = -1
        self._key_errors: dict[int, float] = {}
        self._key_in_use: int | None = None
        self._attention = np.zeros(settings.format.grid, np.float32)  # to the picture before
        self._lock = threading.Lock()
        self._restart = False
        self._background = settings.background

    def encode(self, frame: Picture, number: int, captured_at: int = 0) -> Sent:
        """Code one picture (any height, any width, 3) RGB uint8 as frame ``number`` (rising)."""
        with self._spans.frame(number):
            view = self._eyes.look(frame)
            with self._spans("blank"):
                kept = blanked(view.picture, view.matte)
            with self._lock:
                return self._encode(view, kept, number)

    def feedback(self, data: bytes) -> None:
        """What the receiver holds, as its ``Received.feedback`` says. Raises BitstreamError on garbage."""
        feedback, held = parse_feedback(data)
        with self._lock:
            newest = unwrap(feedback.newest, self._number - BEHIND)
            if newest > self._number:
                return  # of nothing that was sent
            self._confirmed = {n for n in self._confirmed if n > newest - 16}
            self._confirmed.update(newest - age for age in range(5) if feedback.holds((newest - age) % 256))
            self._objects.confirm(held)
            if feedback.key is not None and self._keys.confirm(feedback.key):
                self._key_in_use = None  # the new one is tried first
                self._objects.complete(PartKind.KEY, feedback.key)
                self._objects.complete(PartKind.COARSE_KEY, feedback.key)

    def request_intra(self) -> None:
        """The receiver has lost its state: begin again with a coarse key."""
        with self._lock:
            self._restart = True

    def set_rate(self, kbps: float, fps: float | None = None, burst: float = math.inf, narrow: bool = False) -> None:
        """Payload to aim at, kbit/s, and how many pictures a second come; None = as many as before. On a ``narrow``
        path the next message begins no slice of a long object once it has ``burst`` bytes."""
        with self._lock:
            self._budget.set_rate(kbps, fps, burst, narrow)

    def set_background(self, background: Background) -> None:
        """Switch the mode. What only the old one sends leaves no more, not even what has left in part; a stricter one
        drops every reference, so that nothing of the room lives on in one."""
        with self._lock:
            if background is self._background:
                return
            if background in (Background.PRIVATE, Background.REPLACE):
                self._restart = True
            if self._background is Background.MEMORY:
                self._objects.drop(PartKind.ROOM)
                self._room.clear()
            elif self._background is Background.SYNTH:
                self._objects.drop(PartKind.LABELS)
                self._labels = None
            self._background = background

    @property
    def rate(self) -> float:
        """Payload rate aimed at, kbit/s."""
        return self._budget.kbps

    def _encode(self, view: View, kept: Picture, number: int) -> Sent:
        self._number = number
        if self._restart:
            self._start_again()
        starting = not self._keys.chained
        with self._spans("key"):
            key = self._choose_key(_Seen(view, kept, self._attention, self._budget.shares.key_care))
            self._offer_room(view)
        code, reference, age = self._quantise(view, kept, key, number)
        with self._spans("code"):
            payload = encode_code(code, reference, age, self._tables)
            again = not self._objects.unsent(PartKind.KEY)
            if starting:
                budget = self._budget.start_bytes(again)
            else:
                budget = self._budget.object_bytes(len(payload), self._objects.unconfirmed(PartKind.KEY))
            allowed = self._budget.burst_bytes(len(payload), again=starting and again)
            parts = tuple(self._objects.take(budget, number, self._budget.narrow, allowed))
            message = self._message(view, number, age, key, payload, code.layout, parts)
            data = message.pack()
        self._history.put(number, code, key.number)
        self._budget.coded(len(payload))
        carried = sum(len(part.payload) for part in parts)
        self._budget.spent(len(data), carried, starting)
        people = (view.people, view.found, view.strength)
        return Sent(data, message.essential().pack(), number, kept, len(payload), carried, *people)

    def _start_again(self) -> None:
        self._restart = False
        self._beginning = self._key_in_use = None
        self._keys.restart()
        self._objects.drop(PartKind.KEY)
        self._objects.drop(PartKind.COARSE_KEY)
        self._history.clear()
        self._confirmed.clear()
        self._labels = None
        self._attention = np.zeros_like(self._attention)
        self._room.offer_again()

    def _choose_key(self, seen: _Seen) -> Key:
        """The key for this frame; starts and renews the chain on the way."""
        if not self._keys.choice:
            number, data = self._keys.make_coarse(seen.kept)
            self._objects.add(PartKind.COARSE_KEY, number, data, len(data))
            assert self._keys.coarse is not None
            return self._keys.coarse  # the chain begins with the next frame: both at once would hold up this one
        fit = self._fitting(seen)
        news = self._news.see(fit.unseen > 0, self._budget.fps)
        under_way = self._objects.pending(PartKind.KEY) or self._objects.pending(PartKind.COARSE_KEY)
        if not self._keys.started:
            self._begin_chain(seen)
        elif not under_way and self._aged(fit):
            early = self._budget.grants_early_key(fit.error)
            saved = self._budget.affords_key and news is not Change.ARRIVES
            if early or saved or (news is Change.STAYS and self._budget.lends_key):
                number, data = self._keys.make(self._key_picture(seen.view, seen.kept))
                self._budget.key_made(len(data), early)
                self._send_key(seen, number, data, PACKET_BYTES if early else self._budget.slice_bytes)
                if all(fit.key is not held for held in self._keys.choice):
                    # The new key takes the place of the oldest: where it arrives whole with this frame, that is gone.
                    fit = self._fitting(seen)
        return fit.key

    def _fitting(self, seen: _Seen) -> _Fit:
        """Of the keys that the receiver holds the one that is nearest to the picture; rather the newest, or the one in
        use."""
        choice = self._keys.choice
        used = next((key for key in choice if key.number == self._key_in_use), choice[-1])
        best = _Fit(used, seen.error(used), seen.unseen(used))
        nearest = OTHER_KEY_RATIO * best.distance(seen.view)
        for key in choice:
            error = seen.error(key)
            if key is used or error >= nearest:  # what the key does not show is dear to find, and comes on top
                continue
            fit = _Fit(key, error, seen.unseen(key))
            if fit.distance(seen.view) < nearest:
                best, nearest = fit, fit.distance(seen.view)
        self._key_in_use = best.key.number
        return best

    def _begin_chain(self, seen: _Seen) -> None:
        """Have the chain's first key coded, or take it when that is done."""
        if self._beginning is None:
            start = partial(start_chain, self._keys.crf, self._key_picture(seen.view, seen.kept))
            self._beginning = _Beginning(_submitted(start, self._executor), seen)
        coded, seen = self._beginning
        if coded.done():
            self._beginning = None
            number, data = self._keys.begin(coded.result())
            self._send_key(seen, number, data, SLICE_BYTES)  # small slices: what is lost is mended on any path

    def _key_picture(self, view: View, kept: Picture) -> Picture:
        """What a key shows: what is kept of the picture, twice as large if keys are to be fine."""
        if not self.settings.fine:
            return kept
        size = SCALE * kept.shape[1], SCALE * kept.shape[0]
        large = view.large() if view.large is not None else resize(view.picture, *size)
        return blanked(large, doubled(view.matte))

    def _send_key(self, seen: _Seen, number: int, data: bytes, slice_bytes: int) -> None:
        self._objects.add(PartKind.KEY, number, data, slice_bytes)
        self._key_errors[number] = seen.error(self._keys.newest)
        self._news.forget()

    def _aged(self, fit: _Fit) -> bool:
        """Whether the picture has moved away from the key."""
        made_with = self._key_errors.get(fit.key.number, 0.0)
        return fit.error > NEW_KEY_RATIO * made_with + NEW_KEY_OFFSET

    def _offer_room(self, view: View) -> None:
        """Feed the room's collector; queue what the background mode calls for."""
        if self._background is Background.MEMORY:
            room = self._room.see(view)
            if room is not None and not self._objects.pending(PartKind.ROOM):
                self._objects.add(PartKind.ROOM, room.number, room.data, SLICE_BYTES)
        elif self._background is Background.SYNTH and self._labels_changed(view):
            self._labels = view.labels.copy()
            self._label_number = (self._label_number + 1) % 16
            self._objects.add(PartKind.LABELS, self._label_number, encode_labels(self._labels), SLICE_BYTES)

    def _labels_changed(self, view: View) -> bool:
        if self._objects.pending(PartKind.LABELS):
            return False
        return self._labels is None or bool(np.mean(self._labels != view.labels) > LABELS_CHANGED)

    def _quantise(self, view: View, kept: Picture, key: Key, number: int) -> tuple[Code, Code | None, int]:
        aligned = Aligned(key.picture, None, 0)
        if self._face is not None:
            with self._spans("align"):
                aligned = self._face.look(kept, view.matte, key.picture)
        with self._spans("encode"):
            latent, self._attention = self._encoder(kept, view.matte, aligned.picture)
        with self._spans("quantise"):
            shares, layout = self._budget.shares, self._budget.shares.layout
            mixed = layout == MIXED
            channels = MAX_CHANNELS if mixed else layout
            found = self._history.newest_before(number, self._confirmed, key.number)
            reference, age = (found[0].code, found[1]) if found else (None, 0)
            seen = view.keep, kept, aligned.picture, self._attention
            weight = code_weight(seen, self._encoder.weights[:channels], shares.face_care, shares.rich_faces)
            strength, tables = self._budget.strength, self._tables
            code = quantise(latent[:channels], view.keep, reference, age, tables, strength, weight, mixed).code
        if self._face is not None:
            with self._spans("face"):
                code = code._replace(face=self._face.code(aligned, reference, age, tables, strength))
        return code, reference, age

    def _message(
        self, view: View, number: int, age: int, key: Key, payload: bytes, layout: int, parts: tuple[Part, ...]
    ) -> Message:
        message = Message(
            kind=Kind.PICTURE,
            number=number % 256,
            background=self._background,
            age=age,
            key=key.number,
            layout=layout,
            picture=payload,
            parts=parts,
        )
        self._crop_age += 1
        if view.crop is not None and (view.crop != self._crop or self._crop_age >= CROP_REPEAT):
            self._crop, self._crop_age = view.crop, 0
            message = replace(message, crop=Crop(*view.crop))
        return message


def _submitted(work: Callable[[], ChainStart], executor: Executor | None) -> Future[ChainStart]:
    """Work done beside the call, or, without an executor, at once."""
    if executor is not None:
        return executor.submit(work)
    done: Future[ChainStart] = Future()
    done.set_result(work())
    return done


def blanked(picture: Picture, matte: NDArray[np.uint8]) -> Picture:
    """The picture (H, W, 3) where the matte (H, W) is 255, and `BLANK` where it is 0; by bits, which is fastest."""
    mask = np.empty_like(picture)
    for channel in range(3):
        mask[..., channel] = matte
    return (picture & mask) | (~mask & np.uint8(BLANK))

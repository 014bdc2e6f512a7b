"""Messages in, pictures out: what the receiving side of a call does.

``receive`` decodes symbols of every message in order (cheap); ``render`` runs the generator for the newest one (dear).
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.code import decode_code
from streamgc.codec.message import Background, Kind, Message, unpack
from streamgc.codec.sections import Crop, Feedback, Part, PartKind, pack_feedback
from streamgc.codec.symbols import Code
from streamgc.codec.tables import Tables
from streamgc.errors import BitstreamError
from streamgc.pipeline.background import BackgroundKeeper, over_room
from streamgc.pipeline.faces import FacePainter
from streamgc.pipeline.history import History, unwrap
from streamgc.pipeline.keys import KeyStore
from streamgc.pipeline.networks import KEPT, SYNTHESISED, GeneratorNetwork, KeyFeatures
from streamgc.pipeline.objects import ObjectReceiver
from streamgc.pipeline.settings import PictureFormat
from streamgc.pipeline.steady import Steadier
from streamgc.profiling.spans import Spans

Picture = NDArray[np.uint8]
AHEAD = 112
"""Messages come in order, and many may be missing before one: of the numbers that repeat after 256 one is meant from 16
behind the newest to 239 ahead of it."""
INTRA_AFTER = 12
"""Messages in a row that cannot be shown before the sender is asked to begin again."""
MODES_WITHOUT_ROOM = (Background.PRIVATE, Background.REPLACE)


class Taken(NamedTuple):
    """What became of a message."""

    number: int
    feedback: bytes
    urgent: bool
    needs_intra: bool
    shown_with: int | None  # number of the key, None when there is nothing to show


class Shown(NamedTuple):
    """A picture to display."""

    picture: Picture
    number: int
    person: NDArray[np.uint8]  # RGB + alpha, (H, W, 4); twice as large, like the picture, where the key is
    crop: Crop | None
    background: Background


class _Ready(NamedTuple):
    number: int
    code: Code
    key: int
    background: Background


class Receiver:
    """Decodes one sender's messages. ``receive`` and ``render`` are called from one thread, or under one lock."""

    def __init__(
        self,
        picture_format: PictureFormat,
        generator: GeneratorNetwork,
        tables: Tables,
        background: BackgroundKeeper,
        spans: Spans | None = None,
        faces: FacePainter | None = None,
    ) -> None:
        """``faces``: paints what the code says of a face; None: it is shown as G makes it."""
        self._format = picture_format
        self._generator, self._tables, self._background = generator, tables, background
        self._faces = faces
        self._spans = Spans(enabled=False) if spans is None else spans
        self._history = History()
        self._objects = ObjectReceiver()
        self._keys = KeyStore(picture_format)
        self._features: dict[int, KeyFeatures] = {}
        self._decoded: list[int] = []
        self._newest = 0
        self._ready: _Ready | None = None
        self._crop: Crop | None = None
        self._mode: Background | None = None
        self._steadier = Steadier()
        self._unshown = 0
        self._broken = False  # a key could not be decoded: the chain must begin anew

    def receive(self, message: bytes, arrived_at: int = 0) -> Taken:
        """Take a message in. Raises BitstreamError; state then is as before, and the call goes on."""
        parsed = unpack(message)
        number = unwrap(parsed.number, self._newest + AHEAD if self._decoded else parsed.number)
        with self._spans.frame(number), self._spans("decode"):
            self._switch_mode(parsed.background)
            complete = [self._take_part(part) for part in parsed.parts]
            ready = self._decode_picture(parsed, number)
        shown_with = None
        if ready is not None and number >= self._newest:
            self._newest = number
            self._ready = ready
            shown_with = ready.key
            self._crop = parsed.crop or self._crop
        self._unshown = 0 if ready is not None else self._unshown + (parsed.kind is not Kind.NONE)
        needs_intra = self._broken or self._unshown >= INTRA_AFTER
        if needs_intra:
            self._unshown, self._broken = 0, False
        return Taken(number, self.feedback(), any(complete), needs_intra, shown_with)

    def feedback(self) -> bytes:
        """What is held now; supersedes every feedback before it."""
        newest = self._decoded[-1] if self._decoded else 0
        older = sum(1 << (newest - 1 - n) for n in self._decoded if 0 < newest - n <= 4)
        return pack_feedback(Feedback(newest % 256, older, self._keys.newest), self._objects.held())

    def render(self) -> Shown | None:
        """The newest picture, once; None when there is nothing new."""
        ready, self._ready = self._ready, None
        if ready is None:
            return None
        with self._spans.frame(ready.number):
            features = self._features_of(ready.key)
            if features is None:
                return None
            with self._spans("generate"):
                plane = np.where(ready.code.keep, np.uint8(KEPT), np.uint8(SYNTHESISED))
                made = self._generator.generate(ready.code, plane, features)
            if self._faces is not None and ready.code.face is not None:
                with self._spans("paint"):
                    made = made._replace(person=self._faces.paint(made.person, ready.code.face))
            with self._spans("enlarge"):
                person = self._generator.enlarge(made._replace(person=self._steadier.show(made.person)), features)
            with self._spans("composite"):
                real = ready.background is Background.MEMORY and self._background.remembers
                scale = person.shape[0] // self._format.height
                picture = over_room(person, self._background.picture(ready.background, scale), real, scale)
        return Shown(picture, ready.number, person, self._crop, ready.background)

    def _switch_mode(self, mode: Background) -> None:
        if self._mode is not None and mode in MODES_WITHOUT_ROOM and mode != self._mode:
            self._background.forget()
            self._objects.forget(PartKind.ROOM)
            self._objects.forget(PartKind.LABELS)
        if mode != self._mode:
            self._steadier.forget()
        self._mode = mode

    def _take_part(self, part: Part) -> bool:
        """Whether a key has become complete. A key that cannot be decoded asks for a new start; of a room only the mode
        that shows it takes anything."""
        if part.kind is PartKind.ROOM and self._mode is not Background.MEMORY:
            return False
        done = self._objects.accept(part)
        if done is None:
            return False
        if done.kind in (PartKind.KEY, PartKind.COARSE_KEY):
            try:
                self._keys.accept(done.kind, done.number, done.data)
            except BitstreamError:
                self._broken = True  # the picture of this message may still be fine
                return False
            self._features.pop(done.number, None)
            return True
        with suppress(BitstreamError):  # a room or labels that are broken: what was there stays
            if done.kind is PartKind.ROOM:
                self._background.room(done.data)
            elif done.kind is PartKind.LABELS:
                self._background.labels(done.data)
        return False

    def _decode_picture(self, message: Message, number: int) -> _Ready | None:
        """The code of a message, if what it builds on is there."""
        if message.kind is Kind.NONE:
            return None
        reference = self._history.get(number - message.age) if message.age else None
        if message.age and reference is None:
            return None
        if message.kind is Kind.SKIP:
            assert reference is not None
            code, key = reference
        else:
            known = reference.code if reference else None
            code = decode_code(message.picture, self._format.grid, message.layout, known, message.age, self._tables)
            key = message.key
        self._history.put(number, code, key)
        if number not in self._decoded:
            self._decoded = sorted([*self._decoded, number])[-8:]
        if self._keys.get(key) is None:
            return None
        return _Ready(number, code, key, message.background)

    def _features_of(self, number: int) -> KeyFeatures | None:
        key = self._keys.get(number)
        if key is None:
            return None
        features = self._features.get(number)
        if features is None or features.picture is not key.picture:
            with self._spans("reference"):
                features = self._generator.features(key.picture, key.large)
            self._features = {n: f for n, f in self._features.items() if self._keys.get(n) is not None}
            self._features[number] = features
        return features

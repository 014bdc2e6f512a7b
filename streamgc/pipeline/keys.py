"""Key pictures on both sides: the sender's chain and the receiver's store."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.sections import PartKind
from streamgc.codec.still import HASTY_PRESET, KeyChainDecoder, KeyChainEncoder, decode_still, encode_still
from streamgc.errors import BitstreamError
from streamgc.pipeline.detail import halved
from streamgc.pipeline.objects import KEY_NUMBERS
from streamgc.pipeline.settings import SCALE, PictureFormat

Picture = NDArray[np.uint8]
COARSE_BYTES = 400
"""A coarse key is at most so long, with its first code in one packet."""
COARSE_TRIES = ((2, 63), (3, 59), (4, 59), (4, 63))
"""(shrink, CRF) tried in turn until a coarse key is small enough."""
STARTS_CHAIN, FOLLOWS = 0, 1
"""First byte of a key object: whether it stands alone or is predicted from the key before it."""
HELD_KEYS = 4
"""Keys that both sides keep; a frame names one of them."""


class Key(NamedTuple):
    """A key as both sides see it."""

    number: int  # modulo 8
    picture: Picture  # of the code's size
    large: Picture | None = None  # as it came, where that is twice as large


def key_of(number: int, decoded: Picture, picture_format: PictureFormat) -> Key:
    """A key of the code's size, or twice that. Raises BitstreamError for one of another size."""
    height, width = picture_format.height, picture_format.width
    if decoded.shape[:2] == (height, width):
        return Key(number, decoded)
    if decoded.shape[:2] == (SCALE * height, SCALE * width):
        return Key(number, halved(decoded), decoded)
    raise BitstreamError(f"a key of {decoded.shape[1]}x{decoded.shape[0]} in a call of {picture_format}")


class ChainStart(NamedTuple):
    """A chain with its first key, which no one has been told of yet."""

    encoder: KeyChainEncoder
    decoder: KeyChainDecoder
    data: bytes
    picture: Picture  # what the receiver will see


def start_chain(crf: int, picture: Picture) -> ChainStart:
    """Code the first key of a chain, all of which have its size: as long as a picture takes, so that a call does it on
    another thread."""
    encoder = KeyChainEncoder(picture.shape[1], picture.shape[0], crf=crf)
    decoder = KeyChainDecoder()
    data = encoder.encode(picture)
    return ChainStart(encoder, decoder, data, decoder.decode(data))


class KeySource:
    """The sender's keys: codes them, remembers what the receiver will see, knows which are confirmed."""

    def __init__(self, picture_format: PictureFormat, crf: int) -> None:
        self._format = picture_format
        self.crf = crf
        self._encoder: KeyChainEncoder | None = None
        self._decoder = KeyChainDecoder()
        self._keys: dict[int, Key] = {}
        self._next = 0
        self.confirmed: Key | None = None
        self.coarse: Key | None = None

    @property
    def choice(self) -> list[Key]:
        """What the next frame may be conditioned on, oldest first: the confirmed keys that both sides still hold; until
        there is one, the coarse key that travels along. A chain's keys are confirmed in the order they were made."""
        if self.confirmed is None or self.confirmed is self.coarse:
            return [] if self.coarse is None else [self.coarse]
        made = list(self._keys.values())
        known = made[: self._place(self.confirmed.number) + 1]
        return [key for key in known if key is not self.coarse]

    @property
    def started(self) -> bool:
        """Whether the chain has a first key."""
        return self._encoder is not None

    @property
    def chained(self) -> bool:
        """Whether the receiver is known to hold a key of the chain: the start is over."""
        return self.started and self.confirmed is not None and self.confirmed is not self.coarse

    @property
    def newest(self) -> Key:
        """The key made last."""
        return self._keys[(self._next - 1) % KEY_NUMBERS]

    def make_coarse(self, picture: Picture) -> tuple[int, bytes]:
        """A coarse key of the blanked picture: its number and bytes."""
        for shrink, crf in COARSE_TRIES:
            data = encode_still(picture, crf=crf, shrink=shrink, preset=HASTY_PRESET)
            if len(data) <= COARSE_BYTES:
                break
        self.coarse = self._remember(decode_still(data, self._format.width, self._format.height))
        return self.coarse.number, data

    def begin(self, start: ChainStart) -> tuple[int, bytes]:
        """Take up a chain: its first key's number and bytes."""
        self._encoder, self._decoder = start.encoder, start.decoder
        return self._remember(start.picture).number, bytes((STARTS_CHAIN,)) + start.data

    def make(self, picture: Picture) -> tuple[int, bytes]:
        """The next key of a chain that has begun: its number and bytes. Only after the one before is confirmed."""
        assert self._encoder is not None
        data = self._encoder.encode(picture)
        return self._remember(self._decoder.decode(data)).number, bytes((FOLLOWS,)) + data

    def confirm(self, number: int) -> bool:
        """The receiver holds key ``number`` and all before it; True when that is news, which a late word is not."""
        key = self._keys.get(number)
        if key is None or (self.confirmed is not None and self._place(number) <= self._place(self.confirmed.number)):
            return False
        self.confirmed = key
        return True

    def restart(self) -> None:
        """Nothing the receiver holds counts any more."""
        self._encoder, self.confirmed, self.coarse = None, None, None
        self._keys.clear()

    def _place(self, number: int) -> int:
        """Where a held key stands in the order in which they were made."""
        return list(self._keys).index(number)

    def _remember(self, picture: Picture) -> Key:
        key = key_of(self._next, picture, self._format)
        self._keys[key.number] = key
        self._keys.pop((key.number - HELD_KEYS) % KEY_NUMBERS, None)
        self._next = (self._next + 1) % KEY_NUMBERS
        return key


class KeyStore:
    """The receiver's keys."""

    def __init__(self, picture_format: PictureFormat) -> None:
        self._format = picture_format
        self._decoder: KeyChainDecoder | None = None
        self._keys: dict[int, Key] = {}
        self.newest: int | None = None

    def accept(self, kind: PartKind, number: int, data: bytes) -> None:
        """Decode a complete key. Raises BitstreamError; the chain is then broken until a new one starts."""
        if kind is PartKind.COARSE_KEY:
            key = Key(number, decode_still(data, self._format.width, self._format.height))
        else:
            key = self._next_of_chain(number, data)
        self._keys[number] = key
        self._keys.pop((number - HELD_KEYS) % KEY_NUMBERS, None)
        self.newest = number

    def get(self, number: int) -> Key | None:
        return self._keys.get(number)

    def _next_of_chain(self, number: int, data: bytes) -> Key:
        if not data or data[0] not in (STARTS_CHAIN, FOLLOWS):
            raise BitstreamError("a key of an unknown kind")
        if data[0] == STARTS_CHAIN:
            self._decoder = KeyChainDecoder()
        if self._decoder is None:
            raise BitstreamError("a key that builds on one which is not there")
        try:
            key = key_of(number, self._decoder.decode(data[1:]), self._format)
        except BitstreamError:
            self._decoder = None
            raise
        return key

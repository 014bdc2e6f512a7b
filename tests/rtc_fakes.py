"""A picture codec of a few lines for the tests of transport and call: real bytes, no networks."""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamgc.call.codec import CodecOptions
from streamgc.errors import BitstreamError
from streamgc.profiling.spans import Spans
from streamgc.rtc.pictures import Picture

MAGIC = b"fake"
_HEADER = struct.Struct("!4sIBBBH")
_FEEDBACK = struct.Struct("!II")


@dataclass(frozen=True)
class FakeEncoded:
    message: bytes
    repeat: bytes
    kept: Picture | None


@dataclass(frozen=True)
class FakeReceived:
    number: int
    feedback: bytes
    urgent: bool
    needs_intra: bool


@dataclass(frozen=True)
class FakeShown:
    picture: Picture
    number: int


class FakeSender:
    """Codes a picture as its mean colour; the first message and those asked for are intra.

    Messages have `size` bytes; 0 = what the rate allows at 15 frames a second.
    """

    def __init__(self, size: int = 80, encode_s: float = 0.0) -> None:
        self.size, self.encode_s = size, encode_s
        self.intra = True
        self.intra_numbers: list[int] = []
        self.acknowledged = -1
        self.rates: list[float] = []

    def encode(self, frame: Picture, number: int, captured_at: int) -> FakeEncoded:
        time.sleep(self.encode_s)
        if self.intra:
            self.intra_numbers.append(number)
        colour = frame.reshape(-1, 3).mean(0).round().astype(int)
        head = _HEADER.pack(MAGIC, number, *(int(value) for value in colour), self.intra)
        self.intra = False
        message = head.ljust(self.size or int(self.rates[-1] * 125 / 15), b"\xa5")
        return FakeEncoded(message, message, frame)

    def feedback(self, data: bytes) -> None:
        if len(data) != _FEEDBACK.size:
            raise BitstreamError("fake feedback of wrong size")
        self.acknowledged = max(self.acknowledged, _FEEDBACK.unpack(data)[0])

    def request_intra(self) -> None:
        self.intra = True

    def set_rate(self, kbps: float, fps: float, burst: float = 0.0, narrow: bool = False) -> None:
        self.rates.append(kbps * 15 / fps)


class FakeReceiver:
    """Shows the mean colour; needs an intra message first."""

    def __init__(self, render_s: float = 0.0, shape: tuple[int, int] = (16, 16)) -> None:
        self.render_s = render_s
        self.shape = shape
        self.numbers: list[int] = []
        self.intra_seen = False
        self._newest: tuple[int, tuple[int, int, int]] | None = None
        self._urgent = False

    def receive(self, message: bytes, arrived_at: int) -> FakeReceived:
        if len(message) < _HEADER.size or not message.startswith(MAGIC):
            raise BitstreamError("no fake message")
        _, number, red, green, blue, intra = _HEADER.unpack_from(message)
        self.numbers.append(number)
        self.intra_seen = self.intra_seen or bool(intra)
        if self.intra_seen:
            self._newest = (number, (red, green, blue))
        feedback = _FEEDBACK.pack(number, len(self.numbers))
        return FakeReceived(number, feedback, urgent=bool(intra), needs_intra=not self.intra_seen)

    def render(self) -> FakeShown | None:
        time.sleep(self.render_s)
        if self._newest is None:
            return None
        number, colour = self._newest
        self._newest = None
        return FakeShown(np.full((*self.shape, 3), colour, np.uint8), number)


class FakeCodec:
    """Satisfies streamgc.call.codec.Codec."""

    model_name, engine = "fake", "none"

    def __init__(self, model_hash: str = "00000000000000aa", shape: tuple[int, int] = (16, 16)) -> None:
        self.model_hash = model_hash
        self._shape = shape

    def sender(self, spans: Spans) -> FakeSender:
        return FakeSender()

    def receiver(self, spans: Spans) -> FakeReceiver:
        return FakeReceiver(shape=self._shape)

    def conventional(self) -> Callable[[Picture], Picture] | None:
        return lambda picture: picture


def load_fake(options: CodecOptions) -> FakeCodec:
    """A factory for the options of a call: `tests.rtc_fakes:load_fake`."""
    return FakeCodec(shape=(options.height, options.width))


class SlowFakeCodec(FakeCodec):
    """Its receiver takes 30 ms a picture."""

    def receiver(self, spans: Spans) -> FakeReceiver:
        return FakeReceiver(0.03, self._shape)


def load_slow_fake(options: CodecOptions) -> SlowFakeCodec:
    """A factory, as `load_fake`."""
    return SlowFakeCodec(shape=(options.height, options.width))

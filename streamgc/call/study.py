"""What a profile does to the codec of a call: a receiver made slower, to see what overload does."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamgc.call.codec import Codec
from streamgc.call.demo_options import Study
from streamgc.profiling.spans import Spans
from streamgc.rtc.pictures import Picture, PictureReceiver, PictureSender, Received, Shown


def studied(codec: Codec, study: Study) -> Codec:
    """The codec as the study wants it; itself when it wants nothing of it."""
    return codec if study.slow == 1.0 else _Slowed(codec, study.slow)


class _Slowed:
    """Satisfies `Codec`."""

    def __init__(self, codec: Codec, times: float) -> None:
        self._codec, self._times = codec, times
        self.model_name, self.model_hash = codec.model_name, codec.model_hash

    @property
    def engine(self) -> str:
        return self._codec.engine

    def sender(self, spans: Spans) -> PictureSender:
        return self._codec.sender(spans)

    def receiver(self, spans: Spans) -> PictureReceiver:
        return _SlowReceiver(self._codec.receiver(spans), self._times, spans)

    def conventional(self) -> Callable[[Picture], Picture] | None:
        return self._codec.conventional()


class _SlowReceiver:
    """Sleeps after each picture, as a slower device would work: the cores stay free, the picture comes late."""

    def __init__(self, receiver: PictureReceiver, times: float, spans: Spans) -> None:
        self._receiver, self._times, self._spans = receiver, times, spans

    def receive(self, message: bytes, arrived_at: int) -> Received:
        return self._receiver.receive(message, arrived_at)

    def render(self) -> Shown | None:
        started = time.monotonic_ns()
        shown = self._receiver.render()
        if shown is not None:
            ended = time.monotonic_ns()
            time.sleep((self._times - 1) * (ended - started) / 1e9)
            self._spans.add("slowed", ended, time.monotonic_ns(), shown.number)
        return shown

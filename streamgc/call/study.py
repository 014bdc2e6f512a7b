"""What a profile does to the codec of a call: a receiver made slower, to see what overload does; a block of the picture
that is always kept, to see when its light arrives."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamgc.call.codec import Codec
from streamgc.call.demo_options import Study
from streamgc.pipeline.call_codec import CallCodec
from streamgc.pipeline.looking import Eyes, View
from streamgc.profiling.luminance import LEFT, SIDE, TOP
from streamgc.profiling.spans import Spans
from streamgc.rtc.pictures import Picture, PictureReceiver, PictureSender, Received, Shown
from streamgc.runtime.onnx_header import CELL


def studied(codec: Codec, study: Study) -> Codec:
    """The codec as the study wants it; itself when it wants nothing of it."""
    if study.flash and isinstance(codec, CallCodec):
        codec = _Flashing(codec)
    return codec if study.slow == 1.0 else _Slowed(codec, study.slow)


class _Around:
    """Satisfies `Codec` by another one."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.model_name, self.model_hash = codec.model_name, codec.model_hash

    @property
    def engine(self) -> str:
        return self._codec.engine

    def sender(self, spans: Spans) -> PictureSender:
        return self._codec.sender(spans)

    def receiver(self, spans: Spans) -> PictureReceiver:
        return self._codec.receiver(spans)

    def conventional(self) -> Callable[[Picture], Picture] | None:
        return self._codec.conventional()


class _Slowed(_Around):
    def __init__(self, codec: Codec, times: float) -> None:
        super().__init__(codec)
        self._times = times

    def receiver(self, spans: Spans) -> PictureReceiver:
        return _SlowReceiver(self._codec.receiver(spans), self._times, spans)


class _Flashing(_Around):
    def __init__(self, codec: CallCodec) -> None:
        super().__init__(codec)
        self._call_codec = codec

    def sender(self, spans: Spans) -> PictureSender:
        codec = self._call_codec
        eyes = codec.models.eyes(codec.settings.preserve, codec.settings.framing, spans, codec.settings.fps)
        return codec.sender(spans, _EyesOnBlock(eyes))


class _EyesOnBlock:
    """Satisfies `Eyes`: what the call's own eyes see, and the block of `luminance`."""

    def __init__(self, eyes: Eyes) -> None:
        self._eyes = eyes

    def look(self, picture: Picture) -> View:
        view = self._eyes.look(picture)
        matte, keep = view.matte.copy(), view.keep.copy()
        matte[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = 255
        keep[TOP // CELL : (TOP + SIDE) // CELL, LEFT // CELL : (LEFT + SIDE) // CELL] = True
        return view._replace(matte=matte, keep=keep)


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

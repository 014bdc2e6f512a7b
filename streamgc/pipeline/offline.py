"""A call without a network: the same messages, one after the other, with acknowledgements that come late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamgc.codec.message import Background
from streamgc.codec.still import resize
from streamgc.codec.stream_file import StreamHeader, StreamReader, StreamWriter
from streamgc.errors import InputError, ModelMismatch
from streamgc.pipeline.background import composite, over_room
from streamgc.pipeline.call_codec import CallCodec, LoadedModels
from streamgc.pipeline.looking import Eyes
from streamgc.pipeline.networks import NetworkOptions
from streamgc.pipeline.receiver import Receiver, Shown
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import BLANK, CELL, SCALE, PictureFormat, SenderSettings
from streamgc.profiling.spans import Spans

Picture = NDArray[np.uint8]
ACK_DELAY_MS = 130.0
"""From a frame's coding to its acknowledgement's arrival: 40 ms each way, and the work in between."""


class CodedFrame(NamedTuple):
    """A frame of an offline call."""

    message: bytes
    kept: Picture
    code_bytes: int
    object_bytes: int


def encode_pictures(
    pictures: Iterable[Picture], sender: Sender, mirror: Receiver, fps: float, ack_delay_ms: float = ACK_DELAY_MS
) -> Iterator[CodedFrame]:
    """Messages of pictures as a call sends them.

    ``mirror`` stands for the far receiver (its generator is never run): what it confirms reaches the sender
    ``ack_delay_ms`` later, so that the rates are those of a call with that round trip that acknowledges every picture.
    """
    late: deque[tuple[float, bytes]] = deque()
    for number, picture in enumerate(pictures):
        now = number * 1000 / fps
        while late and late[0][0] <= now:
            sender.feedback(late.popleft()[1])
        sent = sender.encode(picture, number)
        taken = mirror.receive(sent.message)
        late.append((now + ack_delay_ms, taken.feedback))
        yield CodedFrame(sent.message, sent.kept, sent.code_bytes, sent.object_bytes)


def decode_messages(messages: Iterable[bytes], receiver: Receiver) -> Iterator[Shown | None]:
    """A picture for each message; None where there is nothing new to show."""
    for message in messages:
        receiver.receive(message)
        yield receiver.render()


def encode_file(
    pictures: Iterable[Picture], target: Path, codec: CallCodec, ack_delay_ms: float = ACK_DELAY_MS
) -> list[int]:
    """Write the call of ``pictures`` to a ``.sgcv`` file; the size of each message in bytes.

    Raises InputError without a single picture; then no file is left.
    """
    picture_format, settings = codec.models.format, codec.settings
    header = StreamHeader(
        codec.models.model.hash,
        *settings.shown,
        Fraction(settings.fps).limit_denominator(1001),
        *picture_format.grid,
    )
    sizes: list[int] = []
    quiet = Spans(enabled=False)
    with StreamWriter(target, header) as writer:
        frames = encode_pictures(
            pictures, codec.sender(quiet, live=False), codec.receiver(quiet), settings.fps, ack_delay_ms
        )
        for frame in frames:
            writer.write(frame.message)
            sizes.append(len(frame.message))
        if not sizes:
            raise InputError("there is no frame in the input")
    return sizes


class Stream(NamedTuple):
    """An opened ``.sgcv`` file: size and rate of its pictures, and these, decoded one by one."""

    width: int
    height: int
    fps: float
    pictures: Iterator[Shown]


def decode_file(source: Path, model: str, choice: NetworkOptions | None = None) -> Stream:
    """Decode a ``.sgcv`` file. Raises BitstreamError, ModelMismatch and InputError, some of them while it is read.

    Frames before the first that can be shown are grey; one that shows nothing new repeats the one before.
    """
    with StreamReader(source) as reader:
        header = reader.header
    scale = SCALE if header.height == SCALE * CELL * header.rows else 1
    picture_format = PictureFormat(header.width // scale, header.height // scale)
    if (header.rows, header.columns) != picture_format.grid:
        raise ModelMismatch(f"the stream has {header.rows}x{header.columns} cells, {picture_format} has others")
    models = LoadedModels(model, picture_format, choice or NetworkOptions())
    header.require_model(models.model.hash)
    codec = CallCodec(models, SenderSettings(format=picture_format, fps=float(header.fps)))
    return Stream(header.width, header.height, float(header.fps), _decoded(source, codec, header.width, header.height))


def _decoded(source: Path, codec: CallCodec, width: int, height: int) -> Iterator[Shown]:
    grey = np.full((height, width, 3), BLANK, np.uint8)
    last = Shown(grey, 0, np.zeros((height, width, 4), np.uint8), None, Background.MEMORY)
    with StreamReader(source) as reader:
        for shown in decode_messages(reader, codec.receiver(Spans(enabled=False))):
            last = last if shown is None else _sized(shown, width, height)
            yield last


def _sized(shown: Shown, width: int, height: int) -> Shown:
    """A picture of the stream's size: before the first fine key they are smaller."""
    if shown.picture.shape[:2] == (height, width):
        return shown
    alpha = resize(np.repeat(shown.person[..., 3:], 3, -1), width, height)[..., :1]
    person = np.concatenate([resize(shown.person[..., :3], width, height), alpha], -1)
    return shown._replace(picture=resize(shown.picture, width, height), person=person)


def over_original(shown: Shown, original: Picture) -> Picture:
    """The decoded person over the original picture (H, W, 3): what ``--original-background`` shows."""
    return composite(shown.person, original)


class OfflineResult(NamedTuple):
    """A clip coded and decoded: pictures, message sizes in bytes, and median milliseconds a frame."""

    frames: list[Picture]
    sizes: list[int]
    encode_ms: float
    decode_ms: float


class OfflineCodec:
    """The call's codec for measurements: clips in, decoded pictures and message sizes out.

    The person is shown as in the default mode, over flat grey in place of the room: no room is sent, and none helps.
    """

    def __init__(
        self,
        model: str = "lite",
        choice: NetworkOptions | None = None,
        eyes: Callable[[], Eyes] | None = None,
        fine: bool = False,
    ) -> None:
        """``fine``: pictures are coded at half their size, with keys as large as they are."""
        self._model, self._choice, self._eyes, self._fine = model, choice or NetworkOptions(), eyes, fine
        self._models: LoadedModels | None = None

    def encode(self, frames: Sequence[Picture], fps: float, kbps: float, ack_delay_ms: float) -> OfflineResult:
        """``frames`` of one size, (H, W, 3) RGB uint8; without framing, so that places stay comparable."""
        if not frames:
            raise InputError("there is no frame in the clip")
        scale = SCALE if self._fine else 1
        height, width = frames[0].shape[:2]
        picture_format = PictureFormat(width // scale, height // scale)
        if self._models is None or self._models.format != picture_format:
            self._models = LoadedModels(self._model, picture_format, self._choice)
        settings = SenderSettings(picture_format, fps, kbps, Background.REPLACE, framing=False, fine=self._fine)
        codec = CallCodec(self._models, settings)
        quiet = Spans(enabled=False)
        sender = codec.sender(quiet, self._eyes() if self._eyes else None, live=False)
        receiver = codec.receiver(quiet)
        grey = np.full_like(frames[0], BLANK)
        shown: list[Picture] = []
        sizes: list[int] = []
        encode_ms: list[float] = []
        decode_ms: list[float] = []
        started = time.perf_counter()
        for frame in encode_pictures(frames, sender, codec.receiver(quiet), fps, ack_delay_ms):
            encoded = time.perf_counter()
            receiver.receive(frame.message)
            now = receiver.render()
            decoded = time.perf_counter()
            if now is not None:
                now = _sized(now, width, height)
            shown.append(over_room(now.person, grey, True, scale) if now else (shown[-1] if shown else grey))
            sizes.append(len(frame.message))
            encode_ms.append((encoded - started) * 1e3)
            decode_ms.append((decoded - encoded) * 1e3)
            started = time.perf_counter()
        return OfflineResult(shown, sizes, float(np.median(encode_ms)), float(np.median(decode_ms)))

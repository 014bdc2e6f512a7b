"""AV1 for the pictures that travel rarely: key pictures, coarse keys and rooms.

AV1 decodes to the same pixels everywhere, so what both sides hold is equal by definition. The encoder is SVT-AV1,
the decoder dav1d, both inside the PyAV wheels. Every packet is one picture: low delay, no look-ahead, one thread
(bytes depend on the pixels alone).
"""

from __future__ import annotations

import fractions
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.codec.codec
import av.error
import numpy as np
from numpy.typing import NDArray

from streamgc.errors import BackendMissing, BitstreamError

Picture = NDArray[np.uint8]
PRESET = 6
"""SVT-AV1 preset: ~70 ms for the first 256² key, ~10 ms for a successor on one 2020s core."""
HASTY_PRESET = 10
"""For a still that a picture waits for: at 128² 2.5 times as fast as `PRESET`, a twentieth more bytes, 0.2 dB less."""
CRF_MIN, CRF_MAX = 20, 63
LARGEST = 4096 * 2304
"""Pixels of a picture that is decoded: a few bytes can ask for gigabytes."""
TIME_BASE = fractions.Fraction(1, 15)


class KeyChainEncoder:
    """A chain of key pictures, each predicted from the one before.

    Every packet must reach the receiver, in order; the first one of an encoder stands alone.
    """

    def __init__(self, width: int, height: int, *, crf: int = 45, preset: int = PRESET) -> None:
        """``crf`` is SVT-AV1's constant rate factor, 20 (fine) … 63 (coarse). Raises BackendMissing without SVT-AV1."""
        self._count = 0
        crf = min(max(crf, CRF_MIN), CRF_MAX)
        parameters = "pred-struct=1:lookahead=0:lp=1:enable-overlays=0"
        with _scheduling_kept():
            try:
                context = av.CodecContext.create("libsvtav1", "w")
            except av.codec.codec.UnknownCodecError:
                raise BackendMissing("this PyAV has no SVT-AV1 encoder: install the PyAV wheel from PyPI") from None
            assert isinstance(context, av.VideoCodecContext)
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.time_base, context.framerate = TIME_BASE, 1 / TIME_BASE
            context.gop_size = 100_000
            context.thread_count = 1
            context.options = {"preset": str(preset), "crf": str(crf), "svtav1-params": parameters}
            self._context = context
            context.open()

    def encode(self, picture: Picture) -> bytes:
        """Code one picture (H, W, 3) RGB uint8 as the next link of the chain."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        frame.pts = self._count
        frame.time_base = TIME_BASE
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


class KeyChainDecoder:
    """Decode the chain; keeps AV1's own reference pictures."""

    def __init__(self) -> None:
        context = av.CodecContext.create("libdav1d", "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count = 1
        context.options = {"max_pixels": str(LARGEST)}
        self._context = context

    def decode(self, data: bytes) -> Picture:
        """One packet to one picture (H, W, 3) RGB uint8. Raises BitstreamError when it is none."""
        try:
            frames = self._context.decode(av.Packet(data))
        except av.error.FFmpegError as error:
            raise BitstreamError(f"key picture cannot be decoded: {error.strerror}") from error
        if len(frames) != 1:
            raise BitstreamError("key picture cannot be decoded: incomplete")
        return np.asarray(frames[0].to_ndarray(format="rgb24"), np.uint8)


def encode_still(picture: Picture, *, crf: int, shrink: int = 1, preset: int = PRESET) -> bytes:
    """Code one picture by itself; ``shrink`` divides its width and height first."""
    height, width = (side // shrink & ~1 for side in picture.shape[:2])  # 4:2:0 needs even sides
    return KeyChainEncoder(width, height, crf=crf, preset=preset).encode(resize(picture, width, height))


def decode_still(data: bytes, width: int, height: int) -> Picture:
    """Decode a still and scale it to ``width`` × ``height``. Raises BitstreamError."""
    return resize(KeyChainDecoder().decode(data), width, height)


def resize(picture: Picture, width: int, height: int) -> Picture:
    """Scale an RGB picture (H, W, 3), bicubic."""
    if picture.shape[:2] == (height, width):
        return picture
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return np.asarray(
        frame.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray(format="rgb24"), np.uint8
    )


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """SVT-AV1 makes the thread that opens it a real-time one when it may; a call must not starve its host."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameter)

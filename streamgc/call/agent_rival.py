"""What VP8 would need for the same call: measured on the call's own pictures, on this machine, while it goes on.

Two seconds of the pictures that are sent, at the size and rate at which they are coded, go through libvpx as WebRTC
runs it (real time, one pass), with the quantiser fixed at 56 – the coarsest that WebRTC's VP8 uses. So the figure is
the least that VP8 in WebRTC can send without leaving out pictures, and not what it would send by itself (which is
250 kbit/s and more). Shown scaled to the pictures a second that we really send. The first picture, a
key picture, is left out; packet headers are counted as ours are.
"""

import asyncio
import fractions
from typing import Any

import av
import numpy as np

from streamgc.call.sources import Size
from streamgc.rtc.pictures import Picture

WORST_QUANTISER = 56
SAMPLE_S = 2.0
EVERY_S = 20.0
PACKET_BYTES = 1200
HEADER_BYTES = 20 + 8 + 12 + 10
"""IPv4, UDP, RTP and the SRTP tag of a packet."""


class RivalMeter:
    """Collects pictures now and then and measures; `kbps` is None until the first measurement."""

    def __init__(self, size: Size, fps: float) -> None:
        self.kbps: float | None = None
        self._size, self._fps = size, fps
        self._pictures: list[Picture] = []
        self._due = 3.0  # the first seconds of a camera are not like the rest
        self._start: float | None = None
        self._task: asyncio.Task[None] | None = None

    def see(self, picture: Picture, now_s: float) -> None:
        """A picture that is sent."""
        if self._start is None:
            self._start = now_s
        if now_s - self._start < self._due or self._task is not None:
            return
        self._pictures.append(picture)
        if len(self._pictures) > self._fps * SAMPLE_S:
            pictures, self._pictures = self._pictures, []
            self._due = now_s - self._start + EVERY_S
            self._task = asyncio.create_task(self._measure(pictures), name="vp8-rival")

    async def close(self) -> None:
        """Wait for a measurement that is under way."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self, pictures: list[Picture]) -> None:
        try:
            self.kbps = round(await asyncio.to_thread(vp8_kbps, pictures, self._size, self._fps), 1)
        finally:
            self._task = None


def vp8_kbps(pictures: list[Picture], size: Size, fps: float) -> float:
    """On-wire kbit/s of `pictures` (two or more) at `fps`, without the first one, coded by VP8 at its coarsest."""
    context: Any = av.CodecContext.create("libvpx", "w")
    context.width, context.height, context.pix_fmt = size.width, size.height, "yuv420p"
    context.framerate = fractions.Fraction(fps).limit_denominator(1001)
    context.time_base = 1 / context.framerate
    context.gop_size = 3000
    context.thread_count = 1
    context.bit_rate = 50_000
    context.options = {
        "deadline": "realtime",
        "cpu-used": "-6",
        "lag-in-frames": "0",
        "qmin": str(WORST_QUANTISER),
        "qmax": str(WORST_QUANTISER),
        "noise-sensitivity": "4",
    }
    lengths: list[int] = []
    for place, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(_cut(picture, size)), format="rgb24")
        plain = frame.reformat(size.width, size.height, format="yuv420p")
        plain.pts, plain.time_base = place, context.time_base
        lengths.append(sum(packet.size for packet in context.encode(plain)))
    lengths.append(lengths.pop() + sum(packet.size for packet in context.encode(None)))
    later = lengths[1:]
    whole = sum(length + HEADER_BYTES * -(-length // PACKET_BYTES) for length in later)
    return whole * 8 * fps / len(later) / 1000


def _cut(picture: Picture, size: Size) -> Picture:
    """The largest centred cut of the aspect of `size`."""
    height, width = picture.shape[:2]
    scale = min(width / size.width, height / size.height)
    cut_width, cut_height = int(size.width * scale), int(size.height * scale)
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    return picture[top : top + cut_height, left : left + cut_width]

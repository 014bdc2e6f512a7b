"""The sound of the local leg: the tab's microphone to samples, and what is heard to a track for its loudspeaker."""

import asyncio
import fractions
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.jitterbuffer import JitterBuffer
from aiortc.mediastreams import MediaStreamError

from streamgc.rtc.opus import SAMPLE_RATE, Samples
from streamgc.rtc.sound import Sound

WAITING_MAX = 10
"""Stretches of 20 ms that may wait for the tab; beyond that the oldest is left out."""

_LEG_NS = 20_000_000
"""What the leg adds: aiortc gives a packet out when the next one has come."""

_OFF_NS = 60_000_000
_BUFFER = 16
_TIME_BASE = fractions.Fraction(1, SAMPLE_RATE)


class Loudspeaker(MediaStreamTrack):
    """A track of what is heard."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._to_play: asyncio.Queue[Samples | None] = asyncio.Queue()
        self._position = 0

    def put(self, samples: Samples) -> None:
        """Play these next: mono int16, 48 kHz."""
        if self._to_play.qsize() >= WAITING_MAX:
            self._to_play.get_nowait()
        self._to_play.put_nowait(samples)

    async def recv(self) -> av.AudioFrame:
        """For aiortc."""
        samples = await self._to_play.get() if self.readyState == "live" else None
        if samples is None:
            raise MediaStreamError
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, _TIME_BASE, self._position
        self._position += len(samples)
        return frame

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._to_play.put_nowait(None)


def without_waiting(receiver: Any) -> None:
    """Have an aiortc receiver of sound give packets out as they come: on this leg none is late."""
    receiver._RTCRtpReceiver__jitter_buffer = JitterBuffer(capacity=_BUFFER)


async def pump_microphone(track: Any, on_sound: Callable[[Sound], None]) -> None:
    """Hand the tab's microphone over until it ends."""
    captured_ns = 0
    try:
        while True:
            frame = await track.recv()
            length_ns = frame.samples * 1_000_000_000 // frame.sample_rate
            arrived_ns = time.monotonic_ns() - _LEG_NS - length_ns
            # by the number of samples: packets come irregularly, what is in them does not
            if abs(arrived_ns - captured_ns) > _OFF_NS:
                captured_ns = arrived_ns
            on_sound(Sound(mono(frame), captured_ns))
            captured_ns += length_ns
    except MediaStreamError:
        return


def mono(frame: av.AudioFrame) -> Samples:
    """The mean of the channels of interleaved int16, as aiortc decodes Opus."""
    channels = len(frame.layout.channels)
    samples = frame.to_ndarray().reshape(-1, channels).astype(np.int32)
    return np.asarray(samples.sum(1) // channels, np.int16)

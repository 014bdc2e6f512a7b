"""The sending half of the call's sound: samples in, Opus packets out, as long and as rich as the rate control says."""

import asyncio
import fractions
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from streamgc.rtc.opus import SAMPLE_RATE, OpusEncoder, Samples
from streamgc.rtc.rate import SoundPlan

RESYNC_MS = 60
"""Samples that come so much earlier or later than those before them promised begin a new stretch of sound."""

BACKLOG_MS = 400
"""Samples that wait for more than this are dropped, oldest first: sound must not fall behind."""

_TIME_BASE = fractions.Fraction(1, SAMPLE_RATE)


class Sound(NamedTuple):
    """A stretch of sound as the microphone or the file gave it: of any length, 20 ms is usual."""

    samples: Samples
    captured_ns: int  # of its first sample, time.monotonic_ns


@dataclass
class SoundSent:
    """What became of the sound, since the start."""

    packets: int = 0
    payload_bytes: int = 0
    silent: int = 0  # packets' worth of silence that were not sent
    dropped_ms: float = 0.0  # waited too long


class OutgoingSound(MediaStreamTrack):
    """The audio track of a connection. Samples are put in on the event loop; aiortc's sender asks for packets."""

    kind = "audio"

    def __init__(self, plan: Callable[[], SoundPlan]) -> None:
        """`plan` says rate, packet length and expected loss for the next packet. Raises `BackendMissing` without
        libopus."""
        super().__init__()
        self.counts = SoundSent()
        self.muted = False
        self.stamped: tuple[int, int] | None = None  # RTP time before aiortc's origin, and capture, of the last packet
        self._plan = plan
        self._encoder = OpusEncoder()
        self._buffered: deque[Samples] = deque()
        self._count = 0  # samples waiting
        self._start_ns = 0  # capture of the first that waits
        self._came = asyncio.Event()

    def put(self, sound: Sound) -> None:
        """Take samples; while muted they are forgotten."""
        if self.muted or not len(sound.samples):
            self._forget()
            return
        expected = self._start_ns + self._count * 1_000_000_000 // SAMPLE_RATE
        if not self._count or abs(sound.captured_ns - expected) > RESYNC_MS * 1_000_000:
            self._forget()
            self._start_ns = sound.captured_ns
        self._buffered.append(np.asarray(sound.samples, np.int16))
        self._count += len(sound.samples)
        excess = self._count - SAMPLE_RATE * BACKLOG_MS // 1000
        if excess > 0:
            self._take(excess)
            self.counts.dropped_ms += excess * 1000 / SAMPLE_RATE
        self._came.set()

    async def recv(self) -> Any:
        """For aiortc: the next packet that is worth sending."""
        while self.readyState == "live":
            plan = self._plan()
            wanted = plan.packet_ms * SAMPLE_RATE // 1000
            if self._count < wanted:
                self._came.clear()
                await self._came.wait()
                continue
            captured_ns = self._start_ns
            samples = self._take(wanted)
            self._encoder.configure(plan.kbps, plan.loss)
            data = self._encoder.encode(samples)
            if not data:
                self.counts.silent += 1
                continue
            return self._packet(data, captured_ns)
        raise MediaStreamError

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._came.set()

    def _packet(self, data: bytes, captured_ns: int) -> Any:
        self.counts.packets += 1
        self.counts.payload_bytes += len(data)
        packet: Any = av.Packet(data)
        packet.pts = captured_ns * SAMPLE_RATE // 1_000_000_000 & 0xFFFFFFFF
        packet.time_base = _TIME_BASE
        self.stamped = (packet.pts, captured_ns)
        return packet

    def _take(self, count: int) -> Samples:
        """The oldest `count` samples, of which there are as many."""
        taken: list[Samples] = []
        left = count
        while left:
            first = self._buffered.popleft()
            taken.append(first[:left])
            if len(first) > left:
                self._buffered.appendleft(first[left:])
            left -= len(taken[-1])
        self._count -= count
        self._start_ns += count * 1_000_000_000 // SAMPLE_RATE
        return np.concatenate(taken)

    def _forget(self) -> None:
        self._buffered.clear()
        self._count = 0

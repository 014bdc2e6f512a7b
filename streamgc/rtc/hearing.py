"""The receiving half of the call's sound: Opus packets in, 20 ms of samples at a time out, when they are to be heard.

A packet is decoded when its turn comes. One that is missing then is taken from the copy in its successor if there is
one, else concealed for a moment, then there is silence. The delay before the turn follows what the path needs and what
the picture takes; it is changed by playing 2 or 4 % faster or slower, and at once only where nothing is heard.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgc.errors import BitstreamError
from streamgc.rtc.estimate import DelayMeter, LossMeter, ReceivedRate
from streamgc.rtc.lipsync import LipSync
from streamgc.rtc.opus import SAMPLE_RATE, OpusDecoder, Samples, packet_samples
from streamgc.rtc.payload import WIRE_OVERHEAD

BLOCK_MS = 20
BLOCK = SAMPLE_RATE * BLOCK_MS // 1000
"""Samples that are handed out at a time."""

HELD_MAX = 64
"""Packets that wait for their turn; a hostile sender fills no memory."""

CONCEAL_MAX_MS = 100
SILENCE_NS = 1_000_000_000
MARGIN_MS = 12.0
"""The delay is so much above what nearly all packets of late needed."""

LATE_SHARE = 0.05
"""So many packets may come too late: more delay would cost more than the concealment of those."""

WAIT_MAX_MS = 250.0
"""So much longer than it needs may sound wait for a slow picture."""

STRETCH = BLOCK // 50
_OFF_MS = 40.0
"""Beyond this the delay is changed at twice the pace."""

_WINDOW_NS = 5_000_000_000
_JUMP_MS = 300.0
_RATE_PER_NS = SAMPLE_RATE / 1e9


@dataclass
class SoundHeard:
    """What became of the sound, since the start; times in ms."""

    packets: int = 0
    payload_bytes: int = 0
    malformed: int = 0
    late: int = 0
    recovered: int = 0  # packets, from the copy in their successor, or concealed as one by libopus
    concealed_ms: float = 0.0
    played_ms: float = 0.0


class IncomingSound:
    """Plays one stream. `on_sound(samples, at_ns)` gets 960 samples (mono, int16, 48 kHz) every 20 ms from the first
    packet on, silence included."""

    def __init__(self, on_sound: Callable[[Samples, int], None], sync: LipSync) -> None:
        """Raises `BackendMissing` without libopus."""
        self.counts = SoundHeard()
        self.loss, self.delay, self.rate = LossMeter(), DelayMeter(), ReceivedRate()
        self._arrived_ns = 0
        self._on_sound, self._sync = on_sound, sync
        self._decoder = OpusDecoder()
        self._held: dict[int, bytes] = {}  # packets by unwrapped RTP time
        self._stamp: int | None = None  # unwrapped RTP time of the newest packet
        self._transits: deque[tuple[int, float]] = deque()  # arrival; ms from capture of the first sample to there
        self._due: int | None = None  # RTP time of the next sample to be decoded
        self._ready: Samples = np.zeros(0, np.int16)  # decoded, not yet heard
        self._concealing = 0
        self._last_size = BLOCK
        self._origin_ns = 0  # the mixed clock begins with the first packet
        self._player: asyncio.Task[None] | None = None

    def take_packet(self, packet: Any) -> None:
        """Take an RTP packet of aiortc; whatever is in it, nothing is raised."""
        now = time.monotonic_ns()
        self.counts.packets += 1
        self.counts.payload_bytes += len(packet.payload)
        self.loss.add(packet.sequence_number, now)
        self.rate.add(now, len(packet.payload) + WIRE_OVERHEAD)
        data = bytes(packet.payload)
        try:
            length = packet_samples(data)
        except BitstreamError:
            self.counts.malformed += 1
            return
        stamp = self._unwrap(packet.timestamp)
        if self._player is None:
            self._origin_ns = now - round(stamp / _RATE_PER_NS)
            self._player = asyncio.create_task(self._play(), name="sound")
        self._transits.append((now, (now - self._origin_ns) / 1e6 - stamp * 1000 / SAMPLE_RATE))
        while now - self._transits[0][0] > _WINDOW_NS:
            self._transits.popleft()
        self.delay.add((stamp + length) * 1000 / SAMPLE_RATE, now)
        self._arrived_ns = now
        if self._due is not None and stamp + length <= self._due:  # what reaches beyond is still to be heard
            self.counts.late += 1
            return
        self._held[stamp] = data
        while len(self._held) > HELD_MAX:
            del self._held[min(self._held)]

    def queue_ms(self, now_ns: int) -> int:
        """Delay above its minimum, ms; 0 when nobody has spoken for a second."""
        return self.delay.queue_ms if now_ns - self._arrived_ns < SILENCE_NS else 0

    async def close(self) -> None:
        """Stop playing."""
        if self._player is not None:
            self._player.cancel()
            await asyncio.gather(self._player, return_exceptions=True)

    @property
    def delay_ms(self) -> float:
        """What the path needs and the picture takes, ms after the first packet's transit."""
        transits = [transit for _, transit in self._transits]
        need = float(np.quantile(transits, 1 - LATE_SHARE)) + MARGIN_MS if transits else MARGIN_MS
        picture, offset = self._sync.picture_ms, self._clock_offset_ms()
        if picture is None or offset is None:
            return need
        return min(max(need, picture - offset), need + WAIT_MAX_MS)

    def _clock_offset_ms(self) -> float | None:
        """What must be added to a delay by our mixed clock to get one by the clocks of `LipSync`."""
        if self._stamp is None:
            return None
        captured = self._sync.captured_ns("audio", self._stamp & 0xFFFFFFFF)
        if captured is None:
            return None
        return (self._origin_ns + self._stamp / _RATE_PER_NS - captured) / 1e6

    async def _play(self) -> None:
        start, blocks = time.monotonic_ns(), 0
        while True:
            due_ns = start + blocks * BLOCK_MS * 1_000_000
            late = time.monotonic_ns() - due_ns
            if late < 0:
                await asyncio.sleep(-late / 1e9)
            elif late > 1e9:  # the machine slept
                start, blocks = time.monotonic_ns(), 0
                continue
            blocks += 1
            self._on_sound(self._next_block(due_ns), due_ns)
            self.counts.played_ms += BLOCK_MS

    def _next_block(self, at_ns: int) -> Samples:
        """What is to be heard from `at_ns` on."""
        wanted = (at_ns - self._origin_ns) * _RATE_PER_NS - self.delay_ms * SAMPLE_RATE / 1000
        if self._due is None:
            first = min(self._held)
            if wanted < first:
                return np.zeros(BLOCK, np.int16)
            self._due = first
        behind = wanted - (self._due - len(self._ready))  # samples; > 0: play faster
        if abs(behind) > _JUMP_MS * SAMPLE_RATE / 1000 or (self._silent and abs(behind) > BLOCK):
            self._jump(round(wanted))
            behind = 0.0
        count = BLOCK
        if abs(behind) > BLOCK / 2:
            pace = STRETCH * (2 if abs(behind) > _OFF_MS * SAMPLE_RATE / 1000 else 1)
            count += pace if behind > 0 else -pace
        while len(self._ready) < count:
            self._ready = np.concatenate([self._ready, self._decode_next()])
        block, self._ready = self._ready[:count], self._ready[count:]
        self._tell(at_ns, count)
        if count == BLOCK:
            return block
        places = np.linspace(0, count - 1, BLOCK)
        return np.interp(places, np.arange(count), block).round().astype(np.int16)

    @property
    def _silent(self) -> bool:
        return self._concealing >= CONCEAL_MAX_MS and not self._held

    def _tell(self, at_ns: int, count: int) -> None:
        offset = self._clock_offset_ms()
        if offset is not None and self._due is not None and not self._silent:
            heard = self._due - len(self._ready) - count
            self._sync.sound_heard((at_ns - self._origin_ns) / 1e6 - heard * 1000 / SAMPLE_RATE + offset)

    def _jump(self, stamp: int) -> None:
        self._ready = np.zeros(0, np.int16)
        self._due = stamp
        for old in [held for held in self._held if held < stamp]:
            del self._held[old]

    def _decode_next(self) -> Samples:
        """The next stretch of sound: the packet that is due, or what stands in for it."""
        assert self._due is not None
        stamp = max((held for held in self._held if held <= self._due), default=self._due)
        for old in [held for held in self._held if held < stamp]:
            del self._held[old]
        data = self._held.pop(stamp, None)
        samples = np.zeros(0, np.int16)
        if data is not None:
            with contextlib.suppress(BitstreamError):
                samples = self._decoder.decode(data)
                self._last_size, self._concealing = len(samples), 0
                samples = samples[self._due - stamp :]  # a stamp that lies inside what was heard before
        if not len(samples):
            samples = self._stand_in(self._due)
        self._due += len(samples)
        return samples

    def _stand_in(self, due: int) -> Samples:
        following = min(self._held, default=None)
        gap = BLOCK if following is None else following - due
        if following is not None and gap <= self._last_size:
            self.counts.recovered += 1
            with contextlib.suppress(BitstreamError):
                return self._decoder.recover(self._held[following], max(120, gap // 120 * 120))[:gap]
        if self._concealing >= CONCEAL_MAX_MS:
            return np.zeros(min(gap, BLOCK), np.int16)
        self._concealing += BLOCK_MS
        self.counts.concealed_ms += BLOCK_MS
        with contextlib.suppress(BitstreamError):
            return self._decoder.conceal(BLOCK)[: max(1, min(gap, BLOCK))]
        return np.zeros(min(gap, BLOCK), np.int16)

    def _unwrap(self, timestamp: int) -> int:
        if self._stamp is None:
            self._stamp = timestamp + (1 << 32)  # never below zero, however early a packet is
        ahead = (timestamp - self._stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        full = self._stamp + ahead
        self._stamp = max(self._stamp, full)
        return full

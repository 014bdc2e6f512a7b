"""Sound and picture at the same time.

Sender reports say which moment of the sender's clock a packet's timestamp stands for (RFC 3550, 6.4.1); aiortc would
say when the packet left instead, which is 20 to 120 ms later for sound, so ours are corrected before they go out. With
both streams on one clock the receiver compares how long after its capture each is heard and seen. Whichever is early
waits: the sound in its buffer, the picture – no longer than `HOLD_MAX_MS` – before its display.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiortc.rtp import RtcpSrPacket

SKEW_MS = 30.0
"""The picture is shown at most about so much before its sound (ITU-R BT.1359: late sound is noticed from 125 ms on,
early sound from 45 ms)."""

HOLD_MAX_MS = 120.0
REPORTS = 9
_SMOOTHING = 0.1
_NTP_UNIX_S = 2_208_988_800


def ntp_of(monotonic_ns: int) -> int:
    """A moment of time.monotonic_ns as a 64-bit NTP timestamp."""
    wall_ns = time.time_ns() - time.monotonic_ns() + monotonic_ns + _NTP_UNIX_S * 1_000_000_000
    return (wall_ns << 32) // 1_000_000_000


def monotonic_of(ntp_ns: int) -> int:
    """A moment in ns since the NTP epoch by the clock of time.monotonic_ns, if both are of this machine."""
    return ntp_ns - _NTP_UNIX_S * 1_000_000_000 - time.time_ns() + time.monotonic_ns()


def honest_reports(
    send: Callable[[Any], Awaitable[None]], stamped: Callable[[], tuple[int, int] | None]
) -> Callable[[Any], Awaitable[None]]:
    """A replacement for `_send_rtcp` of aiortc's sender whose sender reports name the moment of capture.

    `stamped` gives timestamp and time.monotonic_ns of the capture of what was sent last. Nothing is reported before.
    """

    async def corrected(packets: Any) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                last = stamped()
                if last is None:
                    return
                packet.sender_info.ntp_timestamp = ntp_of(last[1])
        await send(packets)

    return corrected


class _Clock(NamedTuple):
    """What one stream's timestamps stand for; the median of the last reports, for a report may catch its sender between
    two packets."""

    rate: int  # ticks a second
    origin: int  # timestamp of the first report
    starts: deque[int]  # moments of the origin, ns since the NTP epoch

    @property
    def start_ns(self) -> int:
        return sorted(self.starts)[len(self.starts) // 2]

    def since_ns(self, timestamp: int) -> int:
        ahead = (timestamp - self.origin + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        return ahead * 1_000_000_000 // self.rate


class LipSync:
    """What is known of both streams' delays; all on the event loop."""

    def __init__(self) -> None:
        self._clocks: dict[str, _Clock] = {}
        self._picture_ms: float | None = None  # capture to ready for display
        self._sound_ms: float | None = None  # capture to heard

    def note(self, kind: str, rate: int, packet: Any) -> None:
        """Take a packet that may be a sender report of the `kind` stream, whose clock ticks `rate` times a second."""
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            clock = self._clocks.setdefault(kind, _Clock(rate, info.rtp_timestamp, deque(maxlen=REPORTS)))
            clock.starts.append((info.ntp_timestamp * 1_000_000_000 >> 32) - clock.since_ns(info.rtp_timestamp))

    def captured_ns(self, kind: str, timestamp: int) -> int | None:
        """The capture of a timestamp by the sender's clock; None before its first report."""
        clock = self._clocks.get(kind)
        return None if clock is None else clock.start_ns + clock.since_ns(timestamp)

    def picture_ready(self, timestamp: int, now_ns: int) -> None:
        """A picture could be shown now."""
        captured = self.captured_ns("video", timestamp)
        if captured is not None:
            self._picture_ms = _smooth(self._picture_ms, (now_ns - captured) / 1e6)

    def sound_heard(self, delay_ms: float) -> None:
        """Sound is heard so long after its capture, both by the clocks that `captured_ns` compares."""
        self._sound_ms = delay_ms

    @property
    def picture_ms(self) -> float | None:
        """How long after its capture a picture is ready, with the unknown difference of the two machines' clocks."""
        return self._picture_ms

    @property
    def hold_ms(self) -> float:
        """How long a picture waits for its sound."""
        if self._sound_ms is None or self._picture_ms is None:
            return 0.0
        return min(HOLD_MAX_MS, max(0.0, self._sound_ms - self._picture_ms - SKEW_MS))

    @property
    def skew_ms(self) -> float | None:
        """How much later than its picture a sound is heard; None until both are known."""
        if self._sound_ms is None or self._picture_ms is None:
            return None
        return self._sound_ms - self._picture_ms - self.hold_ms


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)

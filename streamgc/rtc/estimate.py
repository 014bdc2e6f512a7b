"""What a receiver can tell of the path from the packets that came: loss, queueing delay, the rate it takes."""

import math
from collections import deque

from aiortc.rate import RemoteBitrateEstimator

LOSS_WINDOW_NS = 2_000_000_000
DELAY_WINDOW_NS = 10_000_000_000
_SMOOTHING = 0.25
"""Weight of the newest packet in the queueing delay."""


class LossMeter:
    """The share of RTP packets of the last two seconds that did not come, retransmissions not counted as come."""

    def __init__(self) -> None:
        self._highest = -1  # unwrapped sequence number
        self._seen: deque[tuple[int, int]] = (
            deque()
        )  # arrival, unwrapped number of packets that came in order or nearly

    def add(self, sequence: int, now_ns: int) -> None:
        """Note an RTP packet."""
        number = self._unwrap(sequence)
        self._highest = max(self._highest, number)
        self._seen.append((now_ns, number))

    def loss(self, now_ns: int) -> float:
        """0..1; 0 when nothing came, because silence is not loss."""
        while len(self._seen) > 1 and now_ns - self._seen[0][0] > LOSS_WINDOW_NS:
            self._seen.popleft()
        if len(self._seen) < 2:
            return 0.0
        numbers = {number for _, number in self._seen}
        first = min(numbers)
        return 1 - len(numbers) / (self._highest - first + 1)

    def _unwrap(self, sequence: int) -> int:
        if self._highest < 0:
            return sequence
        return self._highest + ((sequence - self._highest + 0x8000 & 0xFFFF) - 0x8000)


class DelayMeter:
    """How much longer packets take than the fastest of the last ten seconds."""

    def __init__(self) -> None:
        self._minima: deque[tuple[int, float]] = deque()  # arrival, transit; transits rise
        self._queue_ms: float | None = None
        self.jitter_ms = 0.0  # smoothed deviation of the transit from one packet to the next
        self._last_ms: float | None = None

    def add(self, sent_ms: float, arrived_ns: int) -> None:
        """`sent_ms` by the sender's clock; the difference of the clocks cancels out."""
        transit = arrived_ns / 1e6 - sent_ms
        while self._minima and (self._minima[-1][1] >= transit or arrived_ns - self._minima[0][0] > DELAY_WINDOW_NS):
            if self._minima[-1][1] >= transit:
                self._minima.pop()
            else:
                self._minima.popleft()
        self._minima.append((arrived_ns, transit))
        above = transit - self._minima[0][1]
        self._queue_ms = above if self._queue_ms is None else self._queue_ms + _SMOOTHING * (above - self._queue_ms)
        if self._last_ms is not None:
            self.jitter_ms += (abs(transit - self._last_ms) - self.jitter_ms) / 16
        self._last_ms = transit

    @property
    def queue_ms(self) -> int:
        """Smoothed delay above the minimum, ms."""
        return round(self._queue_ms or 0.0)


class RateEstimate:
    """aiortc's delay-based estimator (the one behind REMB), fed from our own time stamps.

    The header extension that it usually reads costs 8 bytes a packet – 1 kbit/s at 15 packets a second.
    """

    def __init__(self) -> None:
        self._estimator = RemoteBitrateEstimator()
        self.kbps = 0.0  # RTP payload; 0 = not known yet

    def add(self, sent_ms: float, arrived_ns: int, size: int) -> None:
        """Note a packet with `size` bytes of RTP payload."""
        stamp = math.floor(sent_ms / 1000 * (1 << 18)) & 0xFFFFFF
        estimate = self._estimator.add(
            arrival_time_ms=arrived_ns // 1_000_000, abs_send_time=stamp, payload_size=size, ssrc=0
        )
        if estimate is not None:
            self.kbps = estimate[0] / 1000

"""What a receiver can tell of the path from the packets that came: loss, queueing delay, rate."""

from collections import deque

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


RATE_WINDOW_NS = 500_000_000


class ReceivedRate:
    """What arrived in the last half second, kbit/s."""

    def __init__(self) -> None:
        self._packets: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def add(self, arrived_ns: int, size: int) -> None:
        """Note a packet of `size` bytes."""
        self._packets.append((arrived_ns, size))
        self._bytes += size
        self._forget(arrived_ns)

    def kbps(self, now_ns: int) -> float:
        """The rate up to now."""
        self._forget(now_ns)
        return self._bytes * 8e6 / RATE_WINDOW_NS

    def _forget(self, now_ns: int) -> None:
        while self._packets and now_ns - self._packets[0][0] > RATE_WINDOW_NS:
            self._bytes -= self._packets.popleft()[1]

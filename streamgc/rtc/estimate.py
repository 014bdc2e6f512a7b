"""What a receiver can tell of the path from the packets that came: loss, queueing delay, rate."""

from collections import deque

LOSS_WINDOW_NS = 2_000_000_000
_RUNS_KEPT = 0.95
"""Of the weight of earlier runs of losses with each new one: the mean is of the last twenty or so."""

_RUN_MAX = 16
"""What is longer is an outage, and says nothing of the next run."""

WIDENED_MS = 12.0
"""So much quicker than any `_GROUP` packets before, of at most their size, came as many over a path that has become
wider. The jitter of a group's median, a few ms, does not get there; 100 bytes take 27 ms less at 100 kbit/s than at
23."""

_GROUP = 9
"""Packets in a row whose median transit and mean size are compared. One alone is hardly ever quicker than the smallest
and luckiest of ten seconds."""

_WIDENED_FOR_NS = 1_000_000_000
_FEWEST = 20
"""Groups of at most its size that must have been seen before one can be quicker than all of them."""

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
        self._runs = self._in_runs = 0.0  # runs of losses and packets lost in them, old ones weighing less

    def add(self, sequence: int, now_ns: int) -> None:
        """Note an RTP packet."""
        number = self._unwrap(sequence)
        missing = number - self._highest - 1 if self._highest >= 0 else 0
        if missing > 0:
            missing = min(missing, _RUN_MAX)
            self._runs, self._in_runs = _RUNS_KEPT * self._runs + 1, _RUNS_KEPT * self._in_runs + missing
        elif missing < 0:  # overtaken, not lost
            self._in_runs = max(self._runs, self._in_runs - 1)
        self._highest = max(self._highest, number)
        self._seen.append((now_ns, number))
        self._forget(now_ns)

    def loss(self, now_ns: int) -> float:
        """0..1; 0 when nothing came, because silence is not loss."""
        self._forget(now_ns)
        if len(self._seen) < 2:
            return 0.0
        numbers = {number for _, number in self._seen}
        first = min(numbers)
        return 1 - len(numbers) / (self._highest - first + 1)

    @property
    def burst(self) -> float:
        """Mean length of the last runs of losses, at least 1."""
        return self._in_runs / self._runs if self._runs else 1.0

    def _forget(self, now_ns: int) -> None:
        while len(self._seen) > 1 and now_ns - self._seen[0][0] > LOSS_WINDOW_NS:
            self._seen.popleft()

    def _unwrap(self, sequence: int) -> int:
        if self._highest < 0:
            return sequence
        return self._highest + ((sequence - self._highest + 0x8000 & 0xFFFF) - 0x8000)


class DelayMeter:
    """How much longer packets take than the fastest of the last ten seconds."""

    def __init__(self) -> None:
        self._minima: deque[tuple[int, float]] = deque()  # arrival, transit; transits rise
        self._last: deque[tuple[int, float]] = deque(maxlen=_GROUP)  # size and transit
        self._groups: deque[tuple[int, float, float]] = deque()  # arrival, mean size, median transit
        self._queue_ms: float | None = None
        self.jitter_ms = 0.0  # smoothed deviation of the transit from one packet to the next
        self._last_ms: float | None = None
        self._widened_ns: int | None = None

    def add(self, sent_ms: float, arrived_ns: int, size: int = 0) -> None:
        """`sent_ms` by the sender's clock; the difference of the clocks cancels out. `size` in bytes."""
        transit = arrived_ns / 1e6 - sent_ms
        self._compare(transit, arrived_ns, size)
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

    def widened(self, now_ns: int) -> bool:
        """Whether the path became wider within the last second: packets came quicker than any of their size or less
        did."""
        return self._widened_ns is not None and now_ns - self._widened_ns < _WIDENED_FOR_NS

    def _compare(self, transit: float, arrived_ns: int, size: int) -> None:
        self._last.append((size, transit))
        if len(self._last) < _GROUP:
            return
        while self._groups and arrived_ns - self._groups[0][0] > DELAY_WINDOW_NS:
            self._groups.popleft()
        mean = sum(size for size, _ in self._last) / _GROUP
        median = sorted(transit for _, transit in self._last)[_GROUP // 2]
        alike = [before for _, other, before in self._groups if other <= mean]
        if len(alike) >= _FEWEST and median < min(alike) - WIDENED_MS:
            self._widened_ns = arrived_ns
            self._groups.clear()
        self._groups.append((arrived_ns, mean, median))

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

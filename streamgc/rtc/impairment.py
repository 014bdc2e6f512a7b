"""A bad network inside the process: loss, bursts, delay, jitter, a rate with a queue, reordering, recorded traces.

Everything a peer sends – ICE, DTLS, SRTP – passes through a `Link` on its way to the socket. Each direction has its
own; the same seed gives the same losses.
"""

import asyncio
import csv
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamgc.errors import InputError

DATAGRAM_OVERHEAD = 28
"""Bytes of IPv4 and UDP header on each datagram."""

REORDER_MS = 30.0
"""How much later a packet comes that others overtake."""

_OPPORTUNITY = 1500
"""Bytes of one delivery opportunity in a mahimahi trace."""


@dataclass(frozen=True)
class Impairment:
    """One direction of a network; the defaults are a perfect one."""

    loss: float = 0.0  # share of datagrams, 0..1
    burst: float = 1.0  # mean length of a run of losses
    delay_ms: float = 0.0  # one way
    jitter_ms: float = 0.0  # standard deviation
    rate_kbps: float = 0.0  # on the wire; 0 = unlimited
    queue_ms: float = 300.0  # longest wait before the bottleneck; more is dropped
    reorder: float = 0.0  # share of datagrams that others overtake
    trace: str = ""  # mahimahi or CSV file, in place of rate_kbps
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1 or not 0 <= self.reorder <= 1:
            raise InputError("loss and reordering are shares: 0 to less than 1")
        if self.burst < 1 or min(self.delay_ms, self.jitter_ms, self.rate_kbps, self.queue_ms) < 0:
            raise InputError("burst is at least 1; delay, jitter, rate and queue are not negative")

    @property
    def perfect(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.loss or self.delay_ms or self.jitter_ms or self.rate_kbps or self.reorder or self.trace)


class Trace:
    """A recorded link: when how many bytes may leave. Starts over at its end."""

    def __init__(self, steps_ms: list[float], step_bytes: list[float]) -> None:
        if not steps_ms or steps_ms[-1] <= 0 or sum(step_bytes) <= 0:
            raise InputError("the trace delivers nothing")
        self._steps = itertools.cycle(zip(steps_ms, step_bytes, strict=True))
        self._period = steps_ms[-1]
        self._cycle_ms, self._last_ms = 0.0, -1.0
        self._at_ms, self._left = self._advance()

    def leave(self, size: int, now_ms: float) -> float:
        """When the last of `size` bytes leaves, for a datagram that reaches the head of the queue at `now_ms` (both
        since the start)."""
        while self._at_ms < now_ms:
            self._at_ms, self._left = self._advance()
        while size > self._left:
            size -= int(self._left)
            self._at_ms, self._left = self._advance()
        self._left -= size
        return self._at_ms

    def _advance(self) -> tuple[float, float]:
        at, size = next(self._steps)
        if at < self._last_ms:
            self._cycle_ms += self._period
        self._last_ms = at
        return self._cycle_ms + at, size


def load_trace(path: str | Path) -> Trace:
    """Read a mahimahi trace (a line = ms of an opportunity of 1500 bytes) or a CSV of `seconds,kbps` rows.

    Raises `InputError` when it is neither.
    """
    try:
        lines = Path(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no readable trace: {path}") from error
    try:
        if lines and "," in lines[0]:
            rows = [(float(row[0]), float(row[1])) for row in csv.reader(lines) if row[0][:1].isdigit()]
            return _trace_of_rates(rows)
        times = [float(line) for line in lines]
    except (ValueError, IndexError) as error:
        raise InputError(f"neither a mahimahi trace nor seconds,kbps: {path}") from error
    if times != sorted(times):
        raise InputError(f"the times of a trace must rise: {path}")
    return Trace(times, [float(_OPPORTUNITY)] * len(times))


def _trace_of_rates(rows: list[tuple[float, float]]) -> Trace:
    """A rate holds until the next row's time, the last one for a second; in steps of 10 ms."""
    steps, sizes = [], []
    for (start, kbps), (end, _) in itertools.pairwise([*rows, (rows[-1][0] + 1.0, 0.0)] if rows else []):
        for step in range(max(1, round((end - start) * 100))):
            steps.append((start - rows[0][0]) * 1000 + (step + 1) * 10.0)
            sizes.append(kbps * 10 / 8)
    return Trace(steps, sizes)


class Link:
    """One direction of an impaired network; delivers by the event loop's clock."""

    def __init__(self, impairment: Impairment) -> None:
        self._impairment = impairment
        self._random = random.Random(impairment.seed)
        self._trace = load_trace(impairment.trace) if impairment.trace else None
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._free = self._start  # when the bottleneck has sent what is queued
        self._last = 0.0
        self._bad = False
        self._pending: set[asyncio.TimerHandle] = set()
        self.sent = self.lost = self.overflowed = 0

    def push(self, size: int, deliver: Callable[[], None]) -> None:
        """Send a datagram of `size` bytes (without IP and UDP headers): `deliver` is called when and if it
        arrives."""
        self.sent += 1
        if self._impairment.perfect:
            deliver()
            return
        if self._loses():
            self.lost += 1
            return
        at = self._leaves(size + DATAGRAM_OVERHEAD)
        if at is None:
            self.overflowed += 1
            return
        self._deliver_at(at + self._transit(), deliver)

    def close(self) -> None:
        """Forget what is still under way."""
        for handle in self._pending:
            handle.cancel()
        self._pending.clear()

    def _loses(self) -> bool:
        """Independent loss, or Gilbert's two states when losses come in bursts; the share is the same."""
        loss, burst = self._impairment.loss, self._impairment.burst
        if burst <= 1 or not loss:
            return self._random.random() < loss
        if self._bad:
            self._bad = self._random.random() >= 1 / burst
        else:
            self._bad = self._random.random() < loss / (burst * (1 - loss))
        return self._bad

    def _leaves(self, size: int) -> float | None:
        """When the datagram has left the bottleneck, or None when the queue is full."""
        now = self._loop.time()
        if self._trace is None and not self._impairment.rate_kbps:
            return now
        if (self._free - now) * 1000 > self._impairment.queue_ms:
            return None
        if self._trace is not None:
            since = (max(self._free, now) - self._start) * 1000
            self._free = self._start + self._trace.leave(size, since) / 1000
        else:
            self._free = max(now, self._free) + size * 8 / (self._impairment.rate_kbps * 1000)
        return self._free

    def _transit(self) -> float:
        jitter = self._random.gauss(0, self._impairment.jitter_ms) if self._impairment.jitter_ms else 0.0
        return max(0.0, self._impairment.delay_ms + jitter) / 1000

    def _deliver_at(self, at: float, deliver: Callable[[], None]) -> None:
        if self._impairment.reorder and self._random.random() < self._impairment.reorder:
            at += REORDER_MS / 1000
        else:
            at = self._last = max(at, self._last + 1e-6)  # jitter alone does not reorder; equal times would

        def arrive() -> None:
            self._pending.discard(handle)
            deliver()

        handle = self._loop.call_at(at, arrive)
        self._pending.add(handle)

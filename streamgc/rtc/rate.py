"""How much to send: what the receiver's reports leave for frame messages, and how often each message is repeated.

The controller behind REMB (Google's, in aiortc) was measured first: at 15 packets a second it comes down within two
seconds when the path narrows, but stays down for good when the path widens again, because its detector needs more
packets than there are. So the limit here follows the queueing delay that the receiver reports: down to below what
arrived when a queue stands; up while there is none, fast as long as it is well below where the last queue stood, slowly
around there, and fast again once that proves to be past.
"""

import time
from collections.abc import Callable

from streamgc.rtc.feedback import Report

FLOOR_KBPS = 3.0
"""Below this no picture is worth sending; it is asked of the codec even when the path seems to take less."""

START_KBPS = 16.0
"""RTP payload before anything is known of the path."""

QUEUE_HIGH_MS, QUEUE_LOW_MS = 80, 45
"""A standing queue above the first is congestion; below the second there is room. One packet alone takes 45 ms at 20
kbit/s."""

DOWN, DOWN_DEEP, DEEP_MS = 0.85, 0.6, 160
"""Of what arrived, on congestion; the second when the queue is longer than `DEEP_MS`, so that it drains."""

UP, CLIMB, CLIMB_LEAST = 1.08, 0.02, 0.006
"""Of the limit with each report that sees room: well below the last congestion; around it, the steps halved each time
the congestion comes back at about the same rate."""

_NEAR, _PAST = 0.9, 1.25
"""Of the rate at the last congestion: where fast growth ends, and where it begins again."""

_PAUSE_S = 0.6
_HEADROOM, _HEADROOM_KBPS = 1.5, 10.0
"""The limit is at most this much above what arrives, so that it is never a guess about what was not tried."""

_HEADER_BYTES = 3
_SINGLE_AT, _SINGLE_UNTIL = 0.01, 0.003
_DOUBLE_AT, _DOUBLE_UNTIL = 0.10, 0.07


class RateControl:
    """Follows the receiver's reports. The ceiling is what the user allows for frame messages, kbit/s."""

    def __init__(self, ceiling_kbps: float, fps: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.ceiling_kbps = ceiling_kbps
        self._fps, self._clock = fps, clock
        self._limit = START_KBPS  # RTP payload, kbit/s
        self._remb = float("inf")
        self._loss = 0.0
        self._depth = 0
        self._spent_kbps = 0.0
        self._cut_at = -_PAUSE_S
        self._congested = False
        self._jammed_at = float("inf")  # what arrived at the last congestion
        self._climb = CLIMB

    @property
    def loss(self) -> float:
        """Smoothed share of packets lost, 0..1."""
        return self._loss

    @property
    def limit_kbps(self) -> float:
        """RTP payload that may be sent, kbit/s."""
        return min(self._limit, self._remb)

    @property
    def depth(self) -> int:
        """How many earlier messages each packet repeats: 1 when there is loss, 2 above 10 % where echoes find no room.

        None in congestion: repeats would make it worse.
        """
        if self._congested:
            return 0
        return 1 if self.echo else self._depth

    @property
    def echo(self) -> bool:
        """Whether each packet of a message is followed by a second one, while the path has room for it.

        A repeat in the next message's packet comes a frame interval later: too late to be displayed in time where the
        path is long.
        """
        return self._depth > 0 and not self._congested and self.limit_kbps >= 4 * self._spent_kbps

    @property
    def message_kbps(self) -> float:
        """What the codec may spend, kbit/s of frame messages."""
        copies = (1 + self.depth) * (2 if self.echo else 1)
        headers = self._fps * _HEADER_BYTES * 8 / 1000
        return max(FLOOR_KBPS, min(self.ceiling_kbps, (self.limit_kbps - headers) / copies))

    def spent(self, message_bytes: int) -> None:
        """Note the size of a message that was sent."""
        self._spent_kbps += 0.1 * (message_bytes * self._fps * 8 / 1000 - self._spent_kbps)

    def report(self, report: Report) -> None:
        """Take a report; raises nothing whatever it says."""
        weight = 0.5 if report.loss > self._loss else 0.15
        self._loss += weight * (report.loss - self._loss)
        self._depth = self._choose_depth()
        paused = self._clock() - self._cut_at < _PAUSE_S
        self._congested = report.queue_ms > QUEUE_HIGH_MS
        if self._congested and not paused:
            self._cut(report)
        elif report.queue_ms < QUEUE_LOW_MS and not paused:
            self._grow(report)

    def receiver_limit(self, kbps: float) -> None:
        """Take a REMB, from a receiver that sends no reports."""
        self._remb = max(FLOOR_KBPS, kbps)

    def _cut(self, report: Report) -> None:
        self._cut_at = self._clock()
        arrived = min(self._limit, max(report.received_kbps, FLOOR_KBPS))
        same = 0.8 * self._jammed_at < arrived < 1.2 * self._jammed_at
        self._climb = max(CLIMB_LEAST, self._climb / 2) if same else CLIMB
        self._jammed_at = arrived
        self._limit = arrived * (DOWN_DEEP if report.queue_ms > DEEP_MS else DOWN)

    def _grow(self, report: Report) -> None:
        if self._limit > _PAST * self._jammed_at:
            self._jammed_at = float("inf")
        step = UP if self._limit < _NEAR * self._jammed_at else 1 + self._climb
        carried = report.received_kbps / (1 - min(report.loss, 0.6))  # loss without a queue is not congestion
        most = max(START_KBPS, _HEADROOM * carried + _HEADROOM_KBPS)
        self._limit = max(min(self._limit, most), min(self._limit * step, most))

    def _choose_depth(self) -> int:
        if self._loss > (_DOUBLE_UNTIL if self._depth >= 2 else _DOUBLE_AT):
            return 2
        return int(self._loss > (_SINGLE_UNTIL if self._depth else _SINGLE_AT))

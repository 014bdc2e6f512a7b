"""How much to send: what the receiver's reports leave for sound and pictures, how often a picture is sent, and how
often each message is repeated. All limits are rates on the wire, with the headers down to IP.

The controller behind REMB (Google's, in aiortc) was measured first: at 15 packets a second it comes down within two
seconds when the path narrows, but stays down for good when the path widens again, because its detector needs more
packets than there are. So the limit here follows the queueing delay that the receiver reports: down to below what
arrived when a queue stands; up while there is none, fast as long as it is well below where the last queue stood, slowly
around there, and fast again once that proves to be past.
"""

import time
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import NamedTuple

from streamgc.rtc.credit import Credit
from streamgc.rtc.estimate import DELAY_WINDOW_NS, LOSS_WINDOW_NS
from streamgc.rtc.feedback import Report
from streamgc.rtc.payload import HEADER, WIRE_OVERHEAD
from streamgc.rtc.repair import Repair

FLOOR_KBPS = 3.0
"""Frame messages: below this no moving picture is worth sending."""

START_KBPS = 24.0
"""Before anything is known of the path."""

QUEUE_HIGH_MS, QUEUE_LOW_MS = 80, 45
"""A standing queue above the first is congestion; below the second there is room. One packet alone takes 45 ms at 20
kbit/s."""

CALM_MS = 30
"""Around the last congestion there is room only below this."""

_DRAINED = 3
"""Reports in a row without a queue after which one that was cut for is gone: packets that come quicker still do so
because the path is wider."""

DOWN, DOWN_DEEP, DEEP_MS = 0.85, 0.6, 160
"""Of what arrived, on congestion; the second when the queue is longer than `DEEP_MS`, so that it drains."""

CUT_MOST = 0.5
"""Of what came lately is left at least after one cut: in the half second after a pause of the machine nothing has
arrived."""

LEAST_KBPS = 6.0
"""The limit is never below what the floor takes."""

UP, CLIMB, CLIMB_LEAST = 1.08, 0.02, 0.006
"""Of the limit with each report that sees room: well below the last congestion; around it, the steps halved each time
the congestion comes back at about the same rate."""

_BOLDER, _BOLD_MOST = 1.1, 40
"""The steps grow by this much with each report in a row that sees no queue, up to so many: a path that became wider is
found in seconds even where nothing else shows it."""

_NEAR, _PAST = 0.8, 1.25
"""Of the rate at the last congestion: where fast growth ends, and where it begins again."""

_BLAMED_S = LOSS_WINDOW_NS / 1e9 + 0.5
"""What is reported lost for so long after a congestion was dropped by the queue: the window of a report, and what stood
in the queue."""

_UNNOTICED = 5
"""Reports in which a queue may drop packets before it counts as a congestion."""

_PAUSE_S = 0.6
_HEADROOM, _HEADROOM_KBPS = 1.6, 15.0
"""The limit is at most this much above what arrives, so that it is never a guess about what was not tried."""

_TRIED = 1.2
"""The same beyond the last congestion: what is not used does not show that there is room."""

_UNTRIED_KBPS = 10.0
"""Up to here the limit may grow whatever arrives: the floor's few messages do not fill what they may."""

_LOSSY = 0.01
"""Share of packets lost above which a path without a queue is one that loses."""

_COARSE_BYTES = 100
_FEEDBACK_KBPS = 1.0
"""For acknowledgements and reports of the other direction."""

_PACKET_KBPS = (WIRE_OVERHEAD + HEADER) * 8 / 1000
"""What one packet of a message a second costs beside the message."""

FRAME_RATES = (15.0, 12.0, 10.0, 8.0, 6.0, 5.0)
"""Of the pictures, when not all that are captured can be sent; the last goes with the floor."""

STOPPED_FPS = 1.0
"""Where there is no room beside the sound, one coarse picture a second says what the path takes."""

COMFORT_KBPS = 3.5
"""Frame messages that a higher frame rate must leave room for."""

DEPTH_MAX = 2
"""Earlier messages that a packet repeats where echoes find no room."""


class SoundPlan(NamedTuple):
    """What the next packet of sound is to be."""

    kbps: float  # of Opus
    packet_ms: int
    loss: float  # expected, 0..1

    @property
    def wire_kbps(self) -> float:
        """On the wire, while somebody speaks."""
        return self.kbps + WIRE_OVERHEAD * 8 / self.packet_ms


SOUND_PLANS = ((6, 120), (6, 60), (8, 60), (12, 60), (12, 40), (16, 40), (16, 20))
"""Opus kbit/s and ms a packet, poorest first: short packets cost headers, long ones delay."""

SOUND_SHARE = 0.5
"""Better sound than the poorest takes at most so much of the limit."""


class RateControl:
    """Follows the receiver's reports.

    `ceiling_kbps` is what the user allows for frame messages, `wire_kbps` for everything on the wire (0 = no such
    limit), `sound_kbps` for Opus.
    """

    def __init__(
        self,
        ceiling_kbps: float,
        fps: float,
        wire_kbps: float = 0.0,
        sound_kbps: float = 16.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ceiling_kbps = ceiling_kbps
        self.sounding = False  # whether there is sound to send
        self._wire_kbps, self._sound_kbps = wire_kbps or float("inf"), sound_kbps
        self.source_fps, self._clock = fps, clock
        self._limit = START_KBPS
        self._remb = float("inf")
        self._loss = 0.0
        self._repair = Repair()
        self._repairs: deque[Repair] = deque(maxlen=_UNNOTICED)  # as it was before the last reports
        self._credit = Credit(clock)
        self._spent = 0.0  # bytes of a message, smoothed
        self._cut_at = -_PAUSE_S
        self._congested = False
        self.narrow = False  # whether there ever was a congestion
        self._congested_at = float("-inf")
        self._jammed_at = float("inf")  # what arrived at the last congestion
        self._climb = CLIMB
        self._queue_ms = 0  # of the last report
        self._drained = 0  # reports in a row without a queue
        self._calm = 0  # reports in a row without a queue around the last congestion
        self._draining = False  # packets come quicker after a cut, too
        self._carried = 0.0  # kbit/s that arrived, smoothed over some reports
        self._sound = 0  # place in SOUND_PLANS

    @property
    def loss(self) -> float:
        """Smoothed share of packets lost, 0..1."""
        return self._loss

    @property
    def limit_kbps(self) -> float:
        """What may be sent, kbit/s on the wire."""
        return min(self._limit, self._remb, self._wire_kbps)

    @property
    def sound(self) -> SoundPlan:
        """What the next packet of sound is to be."""
        kbps, packet_ms = SOUND_PLANS[self._sound]
        return SoundPlan(min(kbps, self._sound_kbps), packet_ms, self._loss)

    @property
    def picture_kbps(self) -> float:
        """What is left for the packets of pictures, on the wire."""
        return self.limit_kbps - _FEEDBACK_KBPS - (self.sound.wire_kbps if self.sounding else 0.0)

    @property
    def fps(self) -> float:
        """How many pictures a second may be sent."""
        left = self.picture_kbps
        wanted = min(self.ceiling_kbps, COMFORT_KBPS)
        rates = [rate for rate in FRAME_RATES if rate < self.source_fps]
        for fps in (self.source_fps, *rates):
            if left - fps * _PACKET_KBPS >= wanted:
                return fps
        least = rates[-1] if rates else self.source_fps
        return least if left - least * _PACKET_KBPS >= 0.8 * FLOOR_KBPS or not self.sounding else STOPPED_FPS

    @property
    def depth(self) -> int:
        """How many earlier messages each packet repeats: 1 beside echoes, up to `DEPTH_MAX` where these find no room.

        None in congestion: repeats would make it worse.
        """
        if self._congested:
            return 0
        return 1 if self.echoes else min(self._repair.copies - 1, DEPTH_MAX)

    @property
    def echoes(self) -> int:
        """How often a message is sent again in packets of its own, while the path has room for it.

        A repeat in the next message's packet comes a frame interval later: too late to be displayed in time where the
        path is long.
        """
        if self._congested:
            return 0
        message = self._spent * 8 / 1000
        for copies in range(self._repair.copies, 1, -1):
            if self.picture_kbps >= self.source_fps * (copies * _PACKET_KBPS + (copies + 1) * message):
                return copies - 1
        return 0

    @property
    def message_kbps(self) -> float:
        """What the codec may spend, kbit/s of frame messages at the present frame rate."""
        fps, echoes = self.fps, self.echoes
        if fps == STOPPED_FPS:
            return fps * _COARSE_BYTES * 8 / 1000
        bodies = 2 + echoes if echoes else 1 + self.depth
        headers = fps * _PACKET_KBPS * (1 + echoes)
        return max(FLOOR_KBPS, min(self.ceiling_kbps, (self.picture_kbps - headers) / bodies))

    @property
    def burst_bytes(self) -> float:
        """What the next message may have, so that its packet and those before it stand in no queue; may be below 0.

        Without bound where packets are lost although there never was a queue: what is missing is mended at once.
        """
        if self._repair.feared > _LOSSY and self._jammed_at == float("inf"):
            return float("inf")
        return self._credit.left(self.picture_kbps) - WIRE_OVERHEAD - HEADER - self.depth * self._spent

    def spent(self, message_bytes: int) -> None:
        """Note the size of a message that was sent."""
        self._spent += 0.1 * (message_bytes - self._spent)

    def left(self, wire_bytes: int) -> None:
        """Note what packets of pictures that leave now take on the wire."""
        self._credit.spend(wire_bytes, self.picture_kbps)

    def report(self, report: Report) -> None:
        """Take a report; raises nothing whatever it says."""
        weight = 0.5 if report.loss > self._loss else 0.15
        self._loss += weight * (report.loss - self._loss)
        paused = self._clock() - self._cut_at < _PAUSE_S
        self._congested = report.queue_ms > QUEUE_HIGH_MS
        self._fear(report)
        self._drained = self._drained + 1 if report.queue_ms < CALM_MS else 0
        if report.widened and (not self._draining or self._drained >= _DRAINED):
            self._jammed_at, self._climb = float("inf"), CLIMB
        lately = self._clock() - self._cut_at < DELAY_WINDOW_NS / 1e9
        self._draining = self._draining and lately and (report.widened or report.queue_ms >= CALM_MS)
        if self._congested and not paused:
            self._cut(report)
        elif report.queue_ms < (CALM_MS if self._near() else QUEUE_LOW_MS) and not paused:
            self._grow(report)
        if report.queue_ms >= CALM_MS:
            self._calm = 0
        self._queue_ms = report.queue_ms
        self._carried += 0.2 * (report.received_kbps - self._carried)
        self._sound = self._choose_sound()

    def _fear(self, report: Report) -> None:
        """What a queue dropped, before it was noticed and after, calls for no copies."""
        if self._congested:
            self._congested_at = self._clock()
            self._repair = self._repairs[0] if self._repairs else self._repair
        blamed = self._clock() - self._congested_at < _BLAMED_S
        if not blamed:
            self._repairs.append(copy(self._repair))
        self._repair.report(report, blamed)

    def receiver_limit(self, kbps: float) -> None:
        """Take a REMB, from a receiver that sends no reports."""
        self._remb = max(FLOOR_KBPS, kbps)

    def _near(self) -> bool:
        """Whether the limit is about where the last congestion was."""
        return _NEAR * self._jammed_at <= self._limit <= _PAST * self._jammed_at

    def _cut(self, report: Report) -> None:
        self._cut_at = self._clock()
        self.narrow = True
        arrived = min(self._limit, max(report.received_kbps, LEAST_KBPS))
        same = 0.8 * self._jammed_at < arrived < 1.2 * self._jammed_at
        self._climb = max(CLIMB_LEAST, self._climb / 2) if same else CLIMB
        if not self._draining:
            self._jammed_at = arrived
        elif arrived > self._jammed_at:  # half a second is a few packets: the most of several would be too much
            self._jammed_at = (self._jammed_at + arrived) / 2
        elif report.queue_ms >= self._queue_ms and report.received_kbps >= LEAST_KBPS:
            # What arrives of a queue that grows is what the path takes; less than the least says nothing of the path.
            self._jammed_at = report.received_kbps
        self._draining = True
        cut = arrived * (DOWN_DEEP if report.queue_ms > DEEP_MS else DOWN)
        self._limit = max(cut, CUT_MOST * min(self._limit, self._carried), LEAST_KBPS)

    def _grow(self, report: Report) -> None:
        if self._limit > _PAST * self._jammed_at:
            self._jammed_at = float("inf")
        self._calm = min(self._calm + 1, _BOLD_MOST) if self._near() else 0
        step = UP if self._limit < _NEAR * self._jammed_at else 1 + self._climb * _BOLDER**self._calm
        carried = report.received_kbps / (1 - min(report.loss, 0.6))  # loss without a queue is not congestion
        if self._jammed_at < float("inf"):
            most = max(self._limit, min(self._jammed_at, START_KBPS), _TRIED * carried, _UNTRIED_KBPS)
        else:
            most = max(START_KBPS, _HEADROOM * carried + _HEADROOM_KBPS)
        self._limit = max(min(self._limit, most), min(self._limit * min(step, UP), most))

    def _choose_sound(self) -> int:
        """The best sound that takes no more than its share; a step up needs a tenth of room to spare."""
        best = 0
        for place, (kbps, packet_ms) in enumerate(SOUND_PLANS):
            wire = SoundPlan(kbps, packet_ms, 0.0).wire_kbps * (1.1 if place > self._sound else 1.0)
            if kbps <= max(self._sound_kbps, SOUND_PLANS[0][0]) and wire <= SOUND_SHARE * self.limit_kbps:
                best = place
        return best

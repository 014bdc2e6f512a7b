"""How often a message has to be sent for the receiver to get it in time.

A loss of p whose runs have a mean length of b packets (Gilbert's two states) takes all of k packets that follow each
other with p · (1 - 1/b)^(k-1). Independent loss is the case b = 1 / (1 - p), and so p^k. What the receiver reports of
two seconds says little about either: of 30 packets at 10 % in runs of three, none is lost in every fourth window. So
what is feared is remembered for longer than what is seen.
"""

from streamgc.rtc.feedback import Report

COPIES_MAX = 4
"""Of a message, in packets of their own."""

MISSING_SHARE = 0.008
"""So many messages may be lost with all their copies."""

_FEWER_AT = 0.75
"""Of `MISSING_SHARE`: what one copy fewer has to stay below, so that the number does not swing."""

_QUICK, _SLOW = 0.1, 0.02
"""Weight of a report, four a second: what has begun counts at once, what has ended is feared for a quarter of a
minute."""

ECHO_S = 0.012
"""Between the packets of one message: far enough for another fate, early enough for the last to be shown in time – 36
ms on top of the 80 that a picture takes at 40 ms of network."""


def echo_waits(echoes: int) -> tuple[float, ...]:
    """Seconds between a message and its first echo, from there to the second, and so on. A single one may wait
    longer."""
    return (2 * ECHO_S,) if echoes == 1 else (ECHO_S,) * echoes


class Repair:
    """Follows the receiver's reports of what is lost."""

    def __init__(self) -> None:
        self._quick = self._slow = 0.0  # share of packets lost
        self._burst = 1.0  # mean length of a run of losses
        self._reports = 0
        self._copies = 1

    def report(self, report: Report, congested: bool) -> None:
        """Take a report. What is lost while a queue stands was dropped there: more copies would only lengthen it."""
        if congested:
            return
        self._reports += 1
        self._quick += max(_QUICK, 1 / self._reports) * (report.loss - self._quick)
        self._slow += max(_SLOW, 1 / self._reports) * (report.loss - self._slow)
        if report.loss:
            self._burst = report.burst
        enough = next((copies for copies in range(1, COPIES_MAX) if self._missing(copies) <= MISSING_SHARE), COPIES_MAX)
        while enough < self._copies and self._missing(enough) > _FEWER_AT * MISSING_SHARE:
            enough += 1
        self._copies = enough

    @property
    def copies(self) -> int:
        """How many packets a message should be in, 1..`COPIES_MAX`, if there is room for them."""
        return self._copies

    @property
    def feared(self) -> float:
        """The share of packets that may be lost, 0..1."""
        return max(self._quick, self._slow)

    def _missing(self, copies: int) -> float:
        """The share of messages of which no copy comes."""
        again = max(self.feared, 1 - 1 / max(1.0, self._burst))
        return float(self.feared * again ** (copies - 1))

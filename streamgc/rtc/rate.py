"""How much to send: what the receiver's reports leave for frame messages, and how often each message is repeated."""

from streamgc.rtc.feedback import Report

FLOOR_KBPS = 3.0
"""Below this no picture is worth sending; it is asked of the codec even when the path seems to take less."""

_HEADER_BYTES = 3
_SINGLE_AT, _SINGLE_UNTIL = 0.01, 0.003
_DOUBLE_AT, _DOUBLE_UNTIL = 0.10, 0.07
_QUEUE_MS = 120
"""Standing queue above which the rate is cut, whatever the estimate says."""


class RateControl:
    """Follows the receiver's reports. The ceiling is what the user allows for frame messages."""

    def __init__(self, ceiling_kbps: float, fps: float) -> None:
        self.ceiling_kbps = ceiling_kbps
        self._fps = fps
        self._limit: float | None = None  # RTP payload, kbit/s; None = not known to be limited
        self._loss = 0.0
        self._depth = 0

    @property
    def loss(self) -> float:
        """Smoothed share of packets lost, 0..1."""
        return self._loss

    @property
    def depth(self) -> int:
        """How many earlier messages each packet repeats: 1 when there is loss, 2 above 10 %."""
        return self._depth

    @property
    def message_kbps(self) -> float:
        """What the codec may spend, kbit/s of frame messages."""
        if self._limit is None:
            return self.ceiling_kbps
        headers = self._fps * _HEADER_BYTES * 8 / 1000
        return max(FLOOR_KBPS, min(self.ceiling_kbps, (self._limit - headers) / (1 + self._depth)))

    def report(self, report: Report) -> None:
        """Take a report; raises nothing whatever it says."""
        weight = 0.5 if report.loss > self._loss else 0.15
        self._loss += weight * (report.loss - self._loss)
        self._depth = self._choose_depth()
        if report.estimate_kbps > 0:
            self._limit = report.estimate_kbps
        if report.queue_ms > _QUEUE_MS:
            self._limit = 0.7 * min(self._limit or self.ceiling_kbps, self.ceiling_kbps)

    def receiver_limit(self, kbps: float) -> None:
        """Take a REMB, from a receiver that sends no reports."""
        self._limit = kbps

    def _choose_depth(self) -> int:
        if self._loss > (_DOUBLE_UNTIL if self._depth >= 2 else _DOUBLE_AT):
            return 2
        return int(self._loss > (_SINGLE_UNTIL if self._depth else _SINGLE_AT))

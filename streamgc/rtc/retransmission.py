"""NACK only while it can still help.

A retransmission takes a round trip. On a local network that is a few ms, and worth waiting for; across a country the
picture would come too late, and repeating messages in later packets is the better repair. The receiver does not know
the round trip, so it measures how long its own NACKs take to be answered.
"""

import time
from collections import OrderedDict
from typing import Any

from aiortc.rtp import RTP_HISTORY_SIZE

USEFUL_MS = 45.0
"""A repair that takes longer than this is not asked for."""

PROBE_EVERY_NS = 5_000_000_000
"""So often is a repair asked for although it would be late, to find out whether it still would."""

REORDER_PATIENCE_NS = 12_000_000
"""How long a missing message is waited for when no repair is under way."""

_ASKED_MAX = 128


class NackWhileUseful:
    """In place of aiortc's NACK generator; says what is missing and worth asking for."""

    def __init__(self) -> None:
        self.missing: set[int] = set()  # read by aiortc after `add` said True
        self.repair_ms: float | None = None  # how long a NACK takes to be answered, smoothed
        self.asked = 0
        self.repaired = False  # whether the packet just added was asked for
        self._asked_ns: OrderedDict[int, int] = OrderedDict()
        self._highest: int | None = None
        self._probe_ns = 0

    def add(self, packet: Any) -> bool:
        """For aiortc, with each RTP packet: True when a NACK for `missing` should go out now."""
        return self.note(packet.sequence_number, time.monotonic_ns())

    def note(self, sequence: int, now_ns: int) -> bool:
        """As `add`, for a packet that came at `now_ns`."""
        asked_ns = self._asked_ns.pop(sequence, None)
        self.repaired = asked_ns is not None
        if asked_ns is not None:
            taken = (now_ns - asked_ns) / 1e6
            self.repair_ms = taken if self.repair_ms is None else 0.7 * self.repair_ms + 0.3 * taken
        if self._highest is None:
            self._highest = sequence
            return False
        ahead = sequence - self._highest & 0xFFFF
        if not 0 < ahead < 0x8000:
            return False
        gap = [(self._highest + step) & 0xFFFF for step in range(1, min(ahead, RTP_HISTORY_SIZE))]
        self._highest = sequence
        if not gap or not self._worthwhile(now_ns):
            return False
        self.missing = set(gap)
        self.asked += len(gap)
        for number in gap:
            self._asked_ns[number] = now_ns
        while len(self._asked_ns) > _ASKED_MAX:
            self._asked_ns.popitem(last=False)
        return True

    @property
    def patience_ns(self) -> int:
        """How long a missing message should be waited for."""
        if self.repair_ms is not None and self.repair_ms <= USEFUL_MS:
            return max(REORDER_PATIENCE_NS, round(self.repair_ms * 1.5e6) + 5_000_000)
        return REORDER_PATIENCE_NS

    def _worthwhile(self, now_ns: int) -> bool:
        if self.repair_ms is not None and self.repair_ms <= USEFUL_MS:
            return True
        if now_ns - self._probe_ns < PROBE_EVERY_NS:
            return False
        self._probe_ns = now_ns
        return True

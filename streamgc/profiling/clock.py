"""The clock of one peer in terms of the other's, from packets that the call sends anyway.

Two kinds of samples, as in NTP (RFC 5905, section 8): a frame that left the sender at `t1` and arrived at the receiver
at `t2`; a transport report that left the receiver at `t3` and came to the sender at `t4`. The least `t2 - t1` of a
while is the shortest way there plus the offset, the least `t4 - t3` the shortest way back minus the offset; half of
their difference is the offset, half of their sum the shortest way. Queues only ever lengthen a way, which is why the
least is taken and not the mean. What cannot be seen is an asymmetry of the shortest ways: half of it is error, and
the shortest way bounds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from streamgc.profiling.recording import Recording, Stage
from streamgc.profiling.spans import REPORT_IN, REPORT_OUT

WINDOW_NS = 10_000_000_000
"""Offsets are estimated for spans of 10 s; a line through them follows clocks that drift (some 10 ppm)."""

SAMPLES_MIN = 3
"""Samples each way that a window needs."""


class ClockOffset(NamedTuple):
    """Receiver's clock minus sender's: `offset_ns + drift * (t - at_ns)`, `t` on the sender's clock."""

    offset_ns: float
    drift: float  # ns a ns
    at_ns: int
    error_ns: float  # bound: the shortest way
    samples: int

    def to_sender(self, receiver_ns: int) -> int:
        """A time of the receiver's clock on the sender's."""
        guess = receiver_ns - self.offset_ns
        return round(receiver_ns - self.offset_ns - self.drift * (guess - self.at_ns))


SAME_CLOCK = ClockOffset(0.0, 0.0, 0, 0.0, 0)
"""Both peers on one machine read one CLOCK_MONOTONIC."""


class _Window(NamedTuple):
    at_ns: float
    offset_ns: float
    way_ns: float


def estimate_offset(there: Sequence[tuple[int, int]], back: Sequence[tuple[int, int]]) -> ClockOffset | None:
    """The offset from `(t1, t2)` of frames and `(t3, t4)` of reports, ns; None when there are too few of either."""
    windows = _windows(there, back) or _windows(there, back, whole=True)
    if not windows:
        return None
    at = float(np.mean([window.at_ns for window in windows]))
    offsets = np.array([window.offset_ns for window in windows])
    drift = 0.0
    if len(windows) >= 3:
        drift, offset = np.polyfit(np.array([window.at_ns for window in windows]) - at, offsets, 1)
    else:
        offset = np.median(offsets)
    error = min(window.way_ns for window in windows)
    return ClockOffset(float(offset), float(drift), round(at), max(0.0, error), len(there) + len(back))


def _windows(there: Sequence[tuple[int, int]], back: Sequence[tuple[int, int]], whole: bool = False) -> list[_Window]:
    """One estimate a window that has samples each way; `whole` = one for everything."""
    forward: dict[int, list[tuple[int, int]]] = defaultdict(list)
    reverse: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for t1, t2 in there:
        forward[0 if whole else t1 // WINDOW_NS].append((t1, t2 - t1))
    for t3, t4 in back:
        reverse[0 if whole else t4 // WINDOW_NS].append((t4, t4 - t3))
    found = []
    for key in sorted(forward.keys() & reverse.keys()):
        if min(len(forward[key]), len(reverse[key])) < SAMPLES_MIN:
            continue
        sent_ns, way_there = min(forward[key], key=lambda sample: sample[1])
        came_ns, way_back = min(reverse[key], key=lambda sample: sample[1])
        found.append(_Window((sent_ns + came_ns) / 2, (way_there - way_back) / 2, (way_there + way_back) / 2))
    return found


def offset_between(sender: Recording, receiver: Recording) -> ClockOffset:
    """Zero on one machine, else estimated; with too few samples zero with an infinite error."""
    if sender.host and sender.host == receiver.host:
        return SAME_CLOCK
    return estimate_between(sender, receiver) or SAME_CLOCK._replace(error_ns=float("inf"))


def estimate_between(sender: Recording, receiver: Recording) -> ClockOffset | None:
    """The offset as the packets show it, also where both peers share a clock."""
    left = {stage.frame: stage.end_ns for stage in sender.stages if stage.stage == "packetise"}
    there = [
        (left[stage.frame], stage.start_ns)
        for stage in receiver.stages
        if stage.stage == "reassemble" and stage.frame in left
    ]
    return estimate_offset(there, list(_reports(receiver.stages, sender.stages)))


def _reports(receiver: Iterable[Stage], sender: Iterable[Stage]) -> Iterable[tuple[int, int]]:
    """`(t3, t4)` of each report that both ends recorded; number and holding time tell which is which, in order."""
    sent: dict[tuple[int, int], list[int]] = defaultdict(list)
    for stage in receiver:
        if stage.stage == REPORT_OUT and stage.frame is not None:
            sent[stage.frame & 0xFF, round(stage.milliseconds)].append(stage.end_ns)
    came: dict[tuple[int, int], list[int]] = defaultdict(list)
    for stage in sender:
        if stage.stage == REPORT_IN and stage.frame is not None:
            came[stage.frame & 0xFF, round(stage.milliseconds)].append(stage.end_ns)
    for key, times in came.items():
        if len(times) == len(sent[key]):  # with one of several lost it cannot be said which
            yield from zip(sent[key], times, strict=True)

"""The frames of one direction of a call, from capture to display, on one clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from streamgc.profiling.clock import ClockOffset, offset_between
from streamgc.profiling.recording import Recording, Stage
from streamgc.profiling.spans import RECEIVER_STAGES, SENDER_STAGES, STAGES

WAITING = "waiting"
"""What lies between two stages of a frame: hand-overs between threads, and waiting for a core."""

CAUSES = {
    "replaced before encoding": "wait",
    "skipped by the codec": "code",
    "failed to encode": "encode",
    "lost": "network",
    "late": "network",
    "malformed packet": "reassemble",
    "not decodable": "decode",
    "failed to decode": "decode",
    "codec too slow": "decode",
    "failed to render": "generate",
    "overtaken": "generate",
}
"""At which stage a frame was dropped, by the cause that the counters name; `overtaken`: decoded, and a newer one
rendered in its place."""

FAILED = ("not decodable", "failed to decode", "codec too slow", "failed to render")
"""Why a frame that arrived was not displayed, other than that a newer one was."""


class Piece(NamedTuple):
    """A stage of a frame, or the waiting between two, on the sender's clock; no two pieces of a frame overlap."""

    stage: str
    start_ns: int
    end_ns: int

    @property
    def milliseconds(self) -> float:
        """Its length in ms."""
        return (self.end_ns - self.start_ns) / 1e6


class Frame(NamedTuple):
    """A frame of the timeline; `shown_ns` None = never displayed."""

    number: int
    captured_ns: int
    shown_ns: int | None
    message: int  # bytes
    stages: tuple[Stage, ...]  # of both peers, as recorded, on the sender's clock, by start
    pieces: tuple[Piece, ...]  # from hand-over to display without a gap; empty when it was not displayed

    @property
    def latency_ms(self) -> float | None:
        """Glass to glass: hand-over by the source to the display call-back."""
        return None if self.shown_ns is None else (self.shown_ns - self.captured_ns) / 1e6


class Timeline(NamedTuple):
    """One direction."""

    frames: tuple[Frame, ...]
    offset: ClockOffset
    dropped: dict[str, int]  # by cause

    @property
    def shown(self) -> list[Frame]:
        """The frames that were displayed."""
        return [frame for frame in self.frames if frame.shown_ns is not None]


def join(sender: Recording, receiver: Recording, offset: ClockOffset | None = None) -> Timeline:
    """Lay the receiver's half of each frame behind the sender's."""
    clock = offset or offset_between(sender, receiver)
    stages: dict[int, list[Stage]] = defaultdict(list)
    for stage in sender.stages:
        if stage.frame is not None and stage.stage in SENDER_STAGES:
            stages[stage.frame].append(stage)
    for stage in receiver.stages:
        if stage.frame is not None and stage.stage in RECEIVER_STAGES:
            stages[stage.frame].append(_moved(stage, clock))
    shown: dict[int, int] = {}
    for mark in receiver.shown:
        shown.setdefault(mark.number, clock.to_sender(mark.at_ns))
    frames = []
    for sent in sender.sent:
        own = _with_network(_first_of_each(stages[sent.number]))
        at_ns = shown.get(sent.number)
        pieces = () if at_ns is None else tuple(_partition(own, sent.captured_ns, at_ns))
        frames.append(Frame(sent.number, sent.captured_ns, at_ns, sent.message, tuple(own), pieces))
    return Timeline(tuple(frames), clock, _dropped(sender, receiver, frames))


def _moved(stage: Stage, clock: ClockOffset) -> Stage:
    start, end = clock.to_sender(stage.start_ns), clock.to_sender(stage.end_ns)
    return Stage(stage.stage, stage.frame, start, end, stage.thread)


def _first_of_each(stages: Iterable[Stage]) -> list[Stage]:
    """By start; of a stage that comes twice (the packets of an echo) the first."""
    first: dict[str, Stage] = {}
    for stage in sorted(stages, key=lambda one: one.start_ns):
        first.setdefault(stage.stage, stage)
    return list(first.values())


def _with_network(stages: Sequence[Stage]) -> list[Stage]:
    """Insert `network`: from when the packets had left (or were made) to the arrival of the last."""
    named = {stage.stage: stage for stage in stages}
    arrived = named.get("reassemble")
    made = named.get("packetise")
    if arrived is None or made is None:
        return list(stages)
    pace = named.get("pace")
    left = min(pace.end_ns, arrived.start_ns) if pace is not None else made.end_ns
    network = Stage("network", arrived.frame, left, max(left, arrived.start_ns), arrived.thread)
    return sorted([*stages, network], key=lambda one: (one.start_ns, one.end_ns))


def _partition(stages: Iterable[Stage], captured_ns: int, shown_ns: int) -> Iterable[Piece]:
    """Cut the time from capture to display into stages and waiting; a stage begins where the one before ended."""
    at = captured_ns
    for stage in stages:
        if stage.stage == "capture":  # lies before the hand-over
            continue
        start, end = max(at, stage.start_ns), min(stage.end_ns, shown_ns)
        if start > at:
            yield Piece(WAITING, at, start)
        if end > start:
            yield Piece(stage.stage, start, end)
        at = max(at, start, end)
    if shown_ns > at:
        yield Piece(WAITING, at, shown_ns)


def _dropped(sender: Recording, receiver: Recording, frames: Sequence[Frame]) -> dict[str, int]:
    dropped = {cause: number for record in (sender, receiver) for cause, number in record.dropped.items() if number}
    arrived = sum(
        frame.shown_ns is None and any(stage.stage in RECEIVER_STAGES for stage in frame.stages)
        for frame in frames[:-1]
    )
    overtaken = arrived - sum(dropped.get(cause, 0) for cause in FAILED)
    return {**dropped, "overtaken": overtaken} if overtaken > 0 else dropped


def stage_order(name: str) -> tuple[int, str]:
    """Sorts stages as a frame passes them, unknown ones last by name."""
    return (STAGES.index(name), "") if name in STAGES else (len(STAGES), name)

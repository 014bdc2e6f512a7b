"""`trace.json`: a call in the Trace Event Format, which https://ui.perfetto.dev and chrome://tracing open.

Each peer is a process with its threads; each stage a slice on the thread that did it; each frame an asynchronous slice
from capture to display; an arrow leads from a frame's last slice at the sender to its first at the receiver; rates and
CPU are counters. Times are µs since the first event, on the sender's clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from streamgc.profiling.recording import Recording, Second
from streamgc.profiling.spans import REPORTS
from streamgc.profiling.timeline import Frame, Timeline

Event = dict[str, Any]
SENDER, RECEIVER = 1, 2
"""Process ids of the two peers in the trace."""

_FRAMES = 0
"""Thread id of the asynchronous slices."""


def trace_events(timeline: Timeline, sender: Recording, receiver: Recording) -> list[Event]:
    """All events of a direction, metadata first, the rest by time."""
    zero = min((frame.captured_ns for frame in timeline.frames), default=0)
    events = [*_metadata(SENDER, f"sender ({sender.peer})", sender)]
    events += _metadata(RECEIVER, f"receiver ({receiver.peer})", receiver)
    timed: list[Event] = []
    for stage in sender.stages:
        if stage.stage not in REPORTS:
            timed.append(_slice(SENDER, stage.stage, stage.frame, stage.start_ns, stage.end_ns, stage.thread, zero))
    move = timeline.offset.to_sender
    for stage in receiver.stages:
        if stage.stage not in REPORTS:
            start, end = move(stage.start_ns), move(stage.end_ns)
            timed.append(_slice(RECEIVER, stage.stage, stage.frame, start, end, stage.thread, zero))
    for frame in timeline.frames:
        timed += _frame(frame, zero)
    timed += _counters(SENDER, sender.seconds, lambda at_ns: at_ns, zero)
    timed += _counters(RECEIVER, receiver.seconds, move, zero)
    return events + sorted(timed, key=lambda event: event["ts"])


def write_trace(path: Path, timeline: Timeline, sender: Recording, receiver: Recording) -> None:
    """Write `trace.json`; it appears under its name when it is complete."""
    whole = {"displayTimeUnit": "ms", "traceEvents": trace_events(timeline, sender, receiver)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(whole))
    os.replace(temporary, path)


def _metadata(process: int, name: str, recording: Recording) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}
    for thread in sorted({stage.thread for stage in recording.stages}):
        label = recording.threads.get(thread, f"thread {thread & 0xFFFF}")
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": _thread(thread), "args": {"name": label}}


def _thread(identity: int) -> int:
    """Python's thread identities have 64 bits; a trace's have 32."""
    return (identity ^ identity >> 32) & 0x7FFFFFFF


def _slice(process: int, name: str, frame: int | None, start: int, end: int, thread: int, zero: int) -> Event:
    arguments = {} if frame is None else {"frame": frame}
    return {
        "ph": "X",
        "name": name,
        "cat": "stage",
        "pid": process,
        "tid": _thread(thread),
        "ts": (start - zero) / 1000,
        "dur": max(0.0, (end - start) / 1000),
        "args": arguments,
    }


def _frame(frame: Frame, zero: int) -> Iterator[Event]:
    if frame.shown_ns is None:
        at = (frame.captured_ns - zero) / 1000
        yield {
            "ph": "i", "s": "p", "name": f"frame {frame.number} not shown", "cat": "frame", "pid": SENDER,
            "tid": _FRAMES, "ts": at, "args": {"bytes": frame.message},
        }  # fmt: skip
        return
    common = {"cat": "frame", "name": "glass to glass", "id": frame.number, "pid": SENDER, "tid": _FRAMES}
    start, end = (frame.captured_ns - zero) / 1000, (frame.shown_ns - zero) / 1000
    yield {**common, "ph": "b", "ts": start, "args": {"frame": frame.number, "bytes": frame.message}}
    yield {**common, "ph": "e", "ts": end, "args": {}}
    left = next((stage for stage in reversed(frame.stages) if stage.stage in ("packetise", "pace")), None)
    arrived = next((stage for stage in frame.stages if stage.stage == "reassemble"), None)
    if left is None or arrived is None:
        return
    flow = {"cat": "network", "name": "network", "id": frame.number}
    # an arrow starts and ends inside a slice
    yield {**flow, "ph": "s", "pid": SENDER, "tid": _thread(left.thread), "ts": (left.start_ns - zero) / 1000}
    thread, at = _thread(arrived.thread), (arrived.start_ns - zero) / 1000
    yield {**flow, "ph": "f", "bp": "e", "pid": RECEIVER, "tid": thread, "ts": at}


def _counters(process: int, seconds: Iterable[Second], move: Any, zero: int) -> Iterator[Event]:
    before: Second | None = None
    for second in seconds:
        at = (move(second.at_ns) - zero) / 1000
        rates = {"sent": second.sent_kbps, "received": second.received_kbps}
        yield {"ph": "C", "name": "kbit/s on the wire", "pid": process, "tid": 0, "ts": at, "args": rates}
        if before is not None and second.at_ns > before.at_ns:
            share = 1e9 / (second.at_ns - before.at_ns)
            busy = {
                name: round(100 * share * (used - before.cpu_s.get(name, 0.0)), 2)
                for name, used in second.cpu_s.items()
            }
            yield {"ph": "C", "name": "CPU %", "pid": process, "tid": 0, "ts": at, "args": busy}
        before = second

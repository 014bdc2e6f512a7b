"""Spans for OpenTelemetry: an OTLP/JSON file, as a collector's `otlpjsonfile` receiver reads it, without its SDK.

One frame is one trace: its root span is glass to glass, the stages are children of it, at the sender and the receiver
as two services. Field names and the hex of identities follow opentelemetry-proto's JSON mapping.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from streamgc.profiling.recording import Recording, Stage
from streamgc.profiling.spans import RECEIVER_STAGES
from streamgc.profiling.timeline import Frame, Timeline

_INTERNAL = 1
"""SPAN_KIND_INTERNAL."""


def write_otlp(path: Path, timeline: Timeline, sender: Recording, receiver: Recording, epoch_ns: int = 0) -> None:
    """Write the frames that were displayed. `epoch_ns` is what to add to the sender's clock for Unix time; 0 asks this
    machine, which is right when the sender ran on it since its boot."""
    epoch = epoch_ns or time.time_ns() - time.monotonic_ns()
    own, far = [], []
    for frame in timeline.shown:
        spans = _spans(frame, epoch)
        own += [span for name, span in spans if name not in RECEIVER_STAGES]
        far += [span for name, span in spans if name in RECEIVER_STAGES]
    services = [("streamgc-sender", sender.peer, own), ("streamgc-receiver", receiver.peer, far)]
    whole = {"resourceSpans": [_service(*service) for service in services]}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.encode(whole) + b"\n")
    os.replace(temporary, path)


def _service(name: str, peer: str, spans: list[dict[str, Any]]) -> dict[str, Any]:
    attributes = [_text("service.name", name), _text("service.instance.id", peer)]
    scope = {"scope": {"name": "streamgc.profiling"}, "spans": spans}
    return {"resource": {"attributes": attributes}, "scopeSpans": [scope]}


def _spans(frame: Frame, epoch: int) -> list[tuple[str, dict[str, Any]]]:
    assert frame.shown_ns is not None
    trace = hashlib.blake2b(f"{frame.number}.{frame.captured_ns}".encode(), digest_size=16).hexdigest()
    root = _identity(trace, "")
    attributes = [_number("frame.number", frame.number), _number("frame.bytes", frame.message)]
    whole = _span(trace, root, "", "glass to glass", frame.captured_ns + epoch, frame.shown_ns + epoch, attributes)
    return [("", whole)] + [(stage.stage, _stage(stage, trace, root, epoch)) for stage in frame.stages]


def _stage(stage: Stage, trace: str, root: str, epoch: int) -> dict[str, Any]:
    attributes = [_number("thread.id", stage.thread)]
    own = _identity(trace, stage.stage)
    return _span(trace, own, root, stage.stage, stage.start_ns + epoch, stage.end_ns + epoch, attributes)


def _span(
    trace: str, identity: str, parent: str, name: str, start: int, end: int, attributes: list[dict[str, Any]]
) -> dict[str, Any]:
    span = {
        "traceId": trace,
        "spanId": identity,
        "name": name,
        "kind": _INTERNAL,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(end),
        "attributes": attributes,
    }
    return {**span, "parentSpanId": parent} if parent else span


def _identity(trace: str, stage: str) -> str:
    return hashlib.blake2b((trace + stage).encode(), digest_size=8).hexdigest()


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _number(key: str, value: int) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)}}

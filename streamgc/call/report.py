"""From what both peers of a demo wrote down to `report.json`, a side-by-side video and a sheet of stills."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamgc.call.demo_options import DemoOptions
from streamgc.call.demo_peer import (
    Ended,
    FirstHeard,
    Flashed,
    PlainShown,
    Record,
    Seen,
    SentFrame,
    ShownFrame,
    SpanRecord,
    Tick,
)
from streamgc.call.sinks import VideoFile, read_raw, side_by_side, write_bytes, write_sheet
from streamgc.codec.still import resize
from streamgc.errors import CallError
from streamgc.profiling.percentiles import StageTimes, as_report, percentiles
from streamgc.profiling.spans import REPORTS
from streamgc.rtc.hearing import BLOCK
from streamgc.rtc.opus import SAMPLE_RATE, Samples
from streamgc.rtc.pictures import Picture

TIMELY_MS = 150.0
SHEET_ROWS = 4
LABELS = ("original", "kept region", "received")


@dataclass
class Log:
    """What one peer wrote."""

    sent: dict[int, SentFrame] = field(default_factory=dict)
    shown: list[ShownFrame] = field(default_factory=list)
    plain: list[PlainShown] = field(default_factory=list)
    spans: list[SpanRecord] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    heard_ns: int | None = None  # when the first sample of the sound file was heard
    flashed: list[Flashed] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    ended: Ended | None = None


def read_log(path: Path) -> Log:
    """Read a peer's events; raises `CallError` when the peer did not get as far as a call."""
    log = Log()
    decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
    for line in path.read_bytes().splitlines():
        record = decoder.decode(line)
        if isinstance(record, SentFrame):
            log.sent[record.number] = record
        elif isinstance(record, ShownFrame):
            log.shown.append(record)
        elif isinstance(record, FirstHeard):
            log.heard_ns = record.at_ns
        elif isinstance(record, PlainShown):
            log.plain.append(record)
        elif isinstance(record, SpanRecord):
            log.spans.append(record)
        elif isinstance(record, Tick):
            log.ticks.append(record)
        elif isinstance(record, Flashed):
            log.flashed.append(record)
        elif isinstance(record, Seen):
            log.seen.append(record)
        else:
            log.ended = record
    if log.ended is None:
        raise CallError("the two peers never got connected")
    return log


def direction(sender: Log, receiver: Log) -> dict[str, Any]:
    """The `video` and `latency_ms` parts of one direction."""
    assert sender.ended is not None
    assert receiver.ended is not None
    seconds = max(1e-3, (sender.ended.ended_ns - sender.ended.connected_ns) / 1e9)
    latencies = glass_to_glass(sender, receiver)
    captured = sender.ended.captured
    video = {
        "kbps_onwire": round(sender.ended.bytes_sent * 8 / seconds / 1000, 2),
        "kbps_payload": round(sender.ended.payload_sent * 8 / seconds / 1000, 2),
        "kbps_messages": round(sum(frame.message for frame in sender.sent.values()) * 8 / seconds / 1000, 2),
        "frames_captured": captured,
        "frames_sent": len(sender.sent),
        "frames_shown": len(receiver.shown),
        "frames_dropped": max(0, captured - len(receiver.shown)),
        "dropped_by_cause": dict(Counter(sender.ended.sent_dropped) + Counter(receiver.ended.received_dropped)),
        "freeze_longest_s": round(receiver.ended.freeze_longest_s, 3),
        "shown_within_150ms": round(sum(ms <= TIMELY_MS for ms in latencies) / max(1, len(sender.sent)), 4),
        "repeats": sender.ended.repeats,
        "rtt_ms": sender.ended.rtt_ms,
        "setup_bytes": sender.ended.bytes_setup,
        "seconds": round(seconds, 2),
    }
    whole = percentiles(latencies)
    latency = {"glass_to_glass": whole.as_dict() if whole else None, "stages": stages(sender, receiver)}
    return {"video": video, "latency_ms": latency}


def glass_to_glass(sender: Log, receiver: Log) -> list[float]:
    """Hand-over by the source to the display call-back, ms, of each frame that was shown."""
    return [
        (shown.at_ns - sender.sent[shown.number].captured_ns) / 1e6
        for shown in receiver.shown
        if shown.number is not None and shown.number in sender.sent
    ]


def stages(sender: Log, receiver: Log) -> dict[str, dict[str, float]]:
    """Percentiles by stage; `network` is from the end of packetising to the arrival of the last packet."""
    times = StageTimes(1_000_000)
    packetised = {span.frame: span.end_ns for span in sender.spans if span.stage == "packetise"}
    for span in (*sender.spans, *receiver.spans):
        if span.stage in REPORTS:
            continue
        times.add(span.stage, (span.end_ns - span.start_ns) / 1e6)
    for span in receiver.spans:
        if span.stage == "reassemble" and span.frame in packetised:
            times.add("network", (span.start_ns - packetised[span.frame]) / 1e6)
    return as_report(times.percentiles())


def report(options: DemoOptions, logs: Sequence[Log]) -> dict[str, Any]:
    """The whole of report.json. `logs` are the sender's and the receiver's; with duplex video each is both."""
    first, second = logs
    assert first.ended is not None
    assert second.ended is not None
    there = direction(first, second)
    whole: dict[str, Any] = {
        "model": first.ended.model,
        "model_hash": first.ended.model_hash,
        "engine": first.ended.engine,
        "codec": first.ended.codec,
        "video": there["video"],
        "latency_ms": there["latency_ms"],
        "cpu_percent": round(first.ended.cpu_percent + second.ended.cpu_percent, 1),
        "rss_mb": round(max(first.ended.rss_mb, second.ended.rss_mb), 1),
        "peers": [
            {"cpu_percent": round(log.ended.cpu_percent, 1), "rss_mb": round(log.ended.rss_mb, 1)}
            for log in logs
            if log.ended is not None
        ],
        "options": msgspec.to_builtins(options, enc_hook=str),
    }
    if first.ended.sound["sent_packets"]:
        whole["sound"] = {"sent": first.ended.sound, "received": second.ended.sound}
    back = direction(second, first)
    if options.duplex:
        whole["reverse"] = back
    else:
        whole["reverse"] = {"video": {"kbps_onwire": back["video"]["kbps_onwire"]}}
    return whole


def write_report(path: Path, whole: dict[str, Any]) -> None:
    """report.json, indented."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")


def write_pictures(options: DemoOptions, folder: Path, logs: Sequence[Log], clip: Sequence[Picture]) -> None:
    """side_by_side.mp4 and contact_sheet.png of the first direction; nothing when nothing was shown."""
    triples = _triples(options, folder, logs, clip)
    if not triples:
        return
    height, width = triples[0][1].shape[:2]
    origin = triples[0][0]
    video = options.out / "side_by_side.mp4"
    heard = _blocks(folder / "b.heard", logs[1].heard_ns)
    with VideoFile(video, width, height, options.codec.fps, sound=bool(heard)) as out:
        for at_ns, picture in triples:
            while heard and heard[0][0] <= at_ns:
                started_ns, samples = heard.popleft()
                out.add_sound(samples, (started_ns - origin) / 1e9)
            out.add(picture, (at_ns - origin) / 1e9)
    chosen = np.linspace(0, len(triples) - 1, min(SHEET_ROWS, len(triples))).round().astype(int)
    write_sheet(options.out / "contact_sheet.png", [triples[place][1] for place in chosen])


def _blocks(path: Path, start_ns: int | None) -> deque[tuple[int, Samples]]:
    """(time heard, 20 ms of sound) of all that a peer heard."""
    if start_ns is None:
        return deque()
    samples = np.fromfile(path, np.int16)
    return deque(
        (start_ns + place * 1_000_000_000 // SAMPLE_RATE, samples[place : place + BLOCK])
        for place in range(0, len(samples), BLOCK)
    )


def _triples(
    options: DemoOptions, folder: Path, logs: Sequence[Log], clip: Sequence[Picture]
) -> list[tuple[int, Picture]]:
    """(time shown, original · kept · received) of every shown frame that was kept."""
    sender, receiver = logs
    width, height = options.codec.shown
    kept = read_raw(folder / "a.kept", options.codec.height, options.codec.width)
    received = read_raw(folder / "b.shown", height, width)
    triples = []
    for shown in receiver.shown:
        frame = sender.sent.get(shown.number) if shown.number is not None else None
        if frame is None or shown.place is None or shown.place >= len(received):
            continue
        blank = np.zeros((height, width, 3), np.uint8)
        original = clip[frame.position] if frame.position < len(clip) else blank
        region = kept[frame.kept] if frame.kept is not None and frame.kept < len(kept) else blank
        region = resize(np.asarray(region), width, height)
        triples.append((shown.at_ns, side_by_side([original, region, received[shown.place]], LABELS)))
    return triples

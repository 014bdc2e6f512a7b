"""The typed snapshot of a call, taken once a second; docs/statistics.md explains every field.

Rates are over the time since the snapshot before, counts since the start of the connection. Rates on the wire count
IPv4 and UDP headers, SRTP, RTCP, ICE and DTLS; payload rates count RTP payload.
"""

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True)
class Sent:
    """What this side sends."""

    kbps_onwire: float = 0.0
    kbps_payload: float = 0.0
    fps: float = 0.0
    frames_captured: int = 0
    frames_sent: int = 0
    frames_dropped: dict[str, int] = field(default_factory=dict)  # by cause
    packets: int = 0
    target_kbps: float = 0.0  # what the codec may spend
    limit_kbps: float = 0.0  # on the wire, that the path seems to take
    target_fps: float = 0.0  # pictures a second that it takes
    repeat_depth: int = 0
    repeats: int = 0
    echoes: int = 0
    retransmitted: int = 0
    intra_requested: int = 0
    loss_reported: float = 0.0  # by the far side, smoothed, 0..1
    people: int = 0  # kept in the last picture
    people_found: int = 0  # in it, kept or not
    kept_strength: float = 1.0  # below 1 while what was kept last fades out because nobody is found
    sound_kbps: float = 0.0  # Opus
    sound_packet_ms: int = 0  # 0: no sound
    sound_packets: int = 0


@dataclass(frozen=True)
class Received:
    """What this side receives."""

    kbps_onwire: float = 0.0
    kbps_payload: float = 0.0
    fps: float = 0.0
    frames_received: int = 0
    frames_shown: int = 0
    frames_dropped: dict[str, int] = field(default_factory=dict)  # by cause
    messages_recovered: int = 0  # from repeats
    messages_duplicate: int = 0
    packets: int = 0
    packets_reordered: int = 0
    loss: float = 0.0  # of the last two seconds, 0..1
    queue_ms: int = 0
    jitter_ms: float = 0.0
    freeze_longest_s: float = 0.0
    silent_s: float = 0.0
    sound_kbps: float = 0.0  # Opus
    sound_packets: int = 0
    sound_late: int = 0
    sound_concealed_ms: float = 0.0
    skew_ms: float | None = None  # how much later than its picture a sound is heard


@dataclass(frozen=True)
class Statistics:
    """One second of a call, as this side sees it."""

    at_s: float
    state: str
    codec: str
    model: str
    engine: str
    note: str  # why a conventional codec is used, or why the call went down
    sent: Sent
    received: Received
    rtt_ms: float | None
    stages: dict[str, dict[str, float]]  # ms: p50, p95, p99


def to_json_line(statistics: Statistics) -> bytes:
    """One line of JSON, newline included."""
    return msgspec.json.encode(statistics) + b"\n"


def from_json_line(line: bytes) -> Statistics:
    """The inverse; raises `msgspec.MsgspecError` for anything else."""
    return msgspec.json.decode(line, type=Statistics)

"""One typed snapshot of a call; docs/statistics.md explains the fields."""

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True)
class Sent:
    """What left, since the snapshot before (rates) or since the start (counts)."""

    kbps_onwire: float = 0.0
    kbps_payload: float = 0.0
    fps: float = 0.0
    frames_captured: int = 0
    frames_sent: int = 0
    frames_dropped: dict[str, int] = field(default_factory=dict)
    packets: int = 0
    target_kbps: float = 0.0
    repeats: int = 0
    retransmitted: int = 0
    intra_requested: int = 0


@dataclass(frozen=True)
class Got:
    """What came, since the snapshot before (rates) or since the start (counts)."""

    kbps_onwire: float = 0.0
    kbps_payload: float = 0.0
    fps: float = 0.0
    frames_received: int = 0
    frames_shown: int = 0
    frames_dropped: dict[str, int] = field(default_factory=dict)
    messages_recovered: int = 0
    packets_reordered: int = 0
    loss: float = 0.0
    queue_ms: int = 0
    jitter_ms: float = 0.0
    freeze_longest_s: float = 0.0
    silent_s: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """One second of a call."""

    at_s: float
    state: str
    codec: str
    model: str
    sent: Sent
    received: Got
    rtt_ms: float | None = None
    loss_reported: float = 0.0
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def to_json_line(statistics: Statistics) -> bytes:
    """One line of JSON, newline included."""
    return msgspec.json.encode(statistics) + b"\n"

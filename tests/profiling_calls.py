"""Recordings of calls that never were: every time in them is known."""

from __future__ import annotations

from streamgc.profiling.recording import Recording, Second, SentMark, ShownMark, Stage
from streamgc.profiling.spans import REPORT_IN, REPORT_OUT

MS = 1_000_000
SENDER_MS = (("wait", 1), ("segment", 6), ("blank", 1), ("encode", 5), ("code", 2), ("packetise", 1))
RECEIVER_MS = (("reassemble", 1), ("decode", 2), ("generate", 9), ("display", 1))
HAND_OVER_MS = 2
"""Between the end of `decode` and the beginning of `generate`."""


def call(
    frames: int = 60,
    fps: float = 15.0,
    way_ms: float = 20.0,
    offset_ns: int = 0,
    drift: float = 0.0,
    lost: tuple[int, ...] = (),
    jitter_ms: tuple[float, ...] = (0.0, 3.0, 0.2, 7.0),
    hosts: tuple[str, str] = ("one", "two"),
) -> tuple[Recording, Recording]:
    """A sender's and a receiver's recording; the receiver's clock is ahead by `offset_ns` and drifts. `jitter_ms` is
    added to the way of one frame after the other, and to that of the report about it."""
    sender = Recording(peer="a", host=hosts[0], threads={1: "sgc-encoder"}, dropped={"replaced before encoding": 2})
    receiver = Recording(peer="b", host=hosts[1], threads={9: "sgc-decoder"}, dropped={"lost": len(lost)})

    def far(ns: float) -> int:
        return round(ns + offset_ns + drift * ns)

    for number in range(frames):
        captured = 1_000_000_000 + round(number * 1e9 / fps)
        at = float(captured)
        for name, length in SENDER_MS:
            sender.stages.append(Stage(name, number, round(at), round(at + length * MS), 1))
            at += length * MS
        sender.sent.append(SentMark(number, captured, 60))
        if number in lost:
            continue
        at += (way_ms + jitter_ms[number % len(jitter_ms)]) * MS
        arrived = at
        for name, length in RECEIVER_MS:
            at += HAND_OVER_MS * MS * (name == "generate")
            receiver.stages.append(Stage(name, number, far(at), far(at + length * MS), 9))
            at += length * MS
        receiver.shown.append(ShownMark(number, far(at)))
        if number % 4 == 0:
            left = arrived + 5 * MS
            back = left + (way_ms + jitter_ms[(number // 4) % len(jitter_ms)]) * MS
            receiver.stages.append(Stage(REPORT_OUT, number & 0xFF, far(left) - 5 * MS, far(left), 9))
            sender.stages.append(Stage(REPORT_IN, number & 0xFF, round(back) - 5 * MS, round(back), 1))
    for record, first in ((sender, 1_000_000_000), (receiver, far(1_000_000_000))):
        record.seconds = [
            Second(
                at_ns=first + second * 10**9, sent_kbps=12.0, cpu_s={"event loop": 0.1 * second, "sgc": 0.3 * second}
            )
            for second in range(4)
        ]
    return sender, receiver

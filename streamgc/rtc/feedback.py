"""What a receiver tells its sender: a transport report and the codec's own acknowledgement.

Both travel in one block, which rides on an RTP packet of the other direction when there is one, and in an RTCP
application-layer feedback packet (RFC 4585, PSFB with FMT 15) when there is none.

How often is decided here. Each RTCP packet costs about 64 bytes on the wire. A key picture that has become complete
is worth a packet of its own – every frame until then is conditioned on an older one – and goes out at once, at most 8
times a second. The rest waits for the next reverse frame or for a beat of 4 a second, which costs 2 kbit/s: the
format knows references of age 1 to 7, and at 15 frames a second and 40 ms one way that beat keeps the newest
confirmed frame at age 2 (just confirmed) to 6 (just before the next beat), where 2 a second would let it lapse half
of the time and 8 a second would cost 4 kbit/s for age 2 to 4.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from streamgc.errors import BitstreamError

URGENT_INTERVAL_NS = 125_000_000
REGULAR_INTERVAL_NS = 250_000_000
RIDE_INTERVAL_NS = 125_000_000
"""Between two blocks that ride on reverse packets, when there is something new but nothing urgent."""

REGULAR_RIDE_NS = 180_000_000
"""A reverse packet takes a block along after so long, so that none needs a packet of its own."""

_REPORT = struct.Struct("!BBBHBB")
_HAS_REPORT, _WIDENED = 1, 2
_BURST_STEPS = 16
_MAGIC = 0x53  # 'S'; a REMB starts with 'R'


class Report(NamedTuple):
    """What the receiver's transport sees of the stream."""

    loss: float  # share of the packets of the last second that did not come, 0..1
    queue_ms: int  # one-way delay above its recent minimum, 0..1020
    received_kbps: float  # sound and pictures on the wire, over the last half second, 0..6553
    newest: int  # number of the newest message, modulo 256
    held_ms: int  # how long ago it came, 0..255: the sender gets the round-trip time from it
    burst: float = 1.0  # mean length of the last runs of losses, packets, 1..15.9
    widened: bool = False  # the path has become wider just now


class Block(NamedTuple):
    """One parsed feedback block."""

    report: Report | None
    codec: bytes  # the codec's feedback; empty = none


def pack_block(report: Report | None, codec: bytes) -> bytes:
    """A feedback block of 1 + 7 + len(codec) bytes."""
    if report is None:
        return bytes([0]) + codec
    fields = _REPORT.pack(
        min(255, round(report.loss * 255)),
        min(255, round(report.burst * _BURST_STEPS)),
        min(255, report.queue_ms // 4),
        min(0xFFFF, round(report.received_kbps * 10)),
        report.newest & 0xFF,
        min(255, max(0, report.held_ms)),
    )
    return bytes([_HAS_REPORT | _WIDENED * report.widened]) + fields + codec


def parse_block(data: bytes) -> Block:
    """Parse a feedback block; raises `BitstreamError` when it is none."""
    if not data or data[0] not in (0, _HAS_REPORT, _HAS_REPORT | _WIDENED):
        raise BitstreamError("feedback block of another version")
    if not data[0]:
        return Block(None, data[1:])
    if len(data) < 1 + _REPORT.size:
        raise BitstreamError("feedback report truncated")
    loss, burst, queue, rate, newest, held = _REPORT.unpack_from(data, 1)
    mean = max(1.0, burst / _BURST_STEPS)
    report = Report(loss / 255, queue * 4, rate / 10, newest, held, mean, bool(data[0] & _WIDENED))
    return Block(report, data[1 + _REPORT.size :])


def pack_application_feedback(block: bytes) -> bytes:
    """The FCI of an RTCP application-layer feedback packet that holds `block` (at most 255 bytes)."""
    fci = bytes([_MAGIC, len(block)]) + block
    return fci + bytes(-len(fci) % 4)


def parse_application_feedback(fci: bytes) -> bytes | None:
    """The block in an FCI, or None when the FCI is not ours; raises `BitstreamError` when it is ours and
    truncated."""
    if not fci or fci[0] != _MAGIC:
        return None
    if len(fci) < 2 or len(fci) < 2 + fci[1]:
        raise BitstreamError("application feedback truncated")
    return fci[2 : 2 + fci[1]]


@dataclass
class FeedbackSchedule:
    """Decides when a block goes out and by which way.

    The codec's feedback is a state, not an event: the newest replaces what was not sent yet.
    """

    codec: bytes = b""
    urgent: bool = False
    fresh: bool = False  # the codec's feedback was not sent yet
    last_ns: int = 0

    def update(self, codec: bytes, urgent: bool) -> None:
        """Take the codec's newest feedback; `urgent` when the sender should hear of it at once."""
        self.codec, self.fresh = codec, True
        self.urgent = self.urgent or urgent

    def ride(self, now_ns: int) -> bool:
        """Whether a reverse packet that leaves now should carry a block."""
        since = now_ns - self.last_ns
        return self.urgent or since >= (RIDE_INTERVAL_NS if self.fresh else REGULAR_RIDE_NS)

    def alone_at(self) -> int:
        """When a block must go out by RTCP if no reverse packet has taken it along, time.monotonic_ns."""
        return self.last_ns + (URGENT_INTERVAL_NS if self.urgent else REGULAR_INTERVAL_NS)

    def take(self, now_ns: int) -> bytes:
        """The codec's feedback to put into the block that goes out now."""
        self.last_ns, self.urgent, self.fresh = now_ns, False, False
        return self.codec

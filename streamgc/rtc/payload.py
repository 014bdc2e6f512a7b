"""The RTP payload of `video/SGC`: frame messages to packet payloads and back. The format is written down in
docs/rtp.md.

A payload starts with three bytes – flags, message number modulo 256, and the milliseconds from capture to here – and
holds one message, or one fragment of a message. Up to three earlier messages may be repeated in it, and feedback for
the other direction may ride along.
"""

from typing import NamedTuple

from streamgc.errors import BitstreamError

PAYLOAD_MAX = 1200
"""Bytes of RTP payload in one packet: with all headers one datagram under common path MTUs."""

FRAGMENTS_MAX = 64
"""Fragments of one message, so that a hostile count allocates nothing."""

REPEATS_MAX = 3
FEEDBACK_MAX = 255

_VERSION = 0x80
_FRAGMENT = 0x40
_REPEATS_SHIFT = 4
_FEEDBACK = 0x08
_RESERVED = 0x07
HEADER = 3
"""Bytes before the message in a payload without repeats and feedback."""

WIRE_OVERHEAD = 50
"""Bytes of a packet beside the payload: 12 RTP, 10 SRTP tag, 8 UDP, 20 IPv4."""

MESSAGE_MAX = FRAGMENTS_MAX * (PAYLOAD_MAX - HEADER - 2) - FEEDBACK_MAX - 1
"""Bytes of the longest message that can be carried."""


class Packet(NamedTuple):
    """One parsed RTP payload."""

    number: int  # message number modulo 256
    delay_ms: int  # capture to packetisation at the sender, 255 = that or more
    fragment: int  # which one this is, from 0
    fragments: int  # of the message; 1 = whole
    body: bytes  # the message, or its fragment
    repeats: tuple[bytes, ...]  # messages number - 1, number - 2, …; an empty one was not repeated
    feedback: bytes  # for the other direction; empty = none


def packetise(
    number: int, message: bytes, delay_ms: int = 0, repeats: tuple[bytes, ...] = (), feedback: bytes = b""
) -> list[bytes]:
    """Cut one message into RTP payloads of at most `PAYLOAD_MAX` bytes, in the order they are to be sent.

    Repeats that do not fit beside the message in one packet are left out (the oldest first); a message that needs
    several packets carries none. Raises `BitstreamError` for a message longer than `MESSAGE_MAX` or more feedback
    than `FEEDBACK_MAX` bytes.
    """
    if len(message) > MESSAGE_MAX:
        raise BitstreamError(f"a message of {len(message)} bytes is longer than RTP carries ({MESSAGE_MAX})")
    if len(feedback) > FEEDBACK_MAX:
        raise BitstreamError(f"feedback of {len(feedback)} bytes is longer than one packet carries ({FEEDBACK_MAX})")
    note = bytes([len(feedback)]) + feedback if feedback else b""
    head = bytes([number & 0xFF, min(max(delay_ms, 0), 255)])
    room = PAYLOAD_MAX - HEADER - len(note)
    if len(message) <= room:
        kept = _repeats_that_fit(repeats, room - len(message))
        flags = (_FEEDBACK if note else 0) | len(kept) << _REPEATS_SHIFT
        return [bytes([flags]) + head + note + b"".join(_varint(len(old)) + old for old in kept) + message]
    first = room - 2
    rest = PAYLOAD_MAX - HEADER - 2
    pieces = [message[:first]] + [message[at : at + rest] for at in range(first, len(message), rest)]
    payloads = []
    for index, piece in enumerate(pieces):
        block = note if index == 0 else b""
        flags = _FRAGMENT | (_FEEDBACK if block else 0)
        payloads.append(bytes([flags]) + head + bytes([index, len(pieces)]) + block + piece)
    return payloads


def parse_packet(payload: bytes) -> Packet:
    """Parse one RTP payload; raises `BitstreamError` for anything that `packetise` cannot have made."""
    if len(payload) < HEADER:
        raise BitstreamError("SGC payload header truncated")
    flags, number, delay = payload[0], payload[1], payload[2]
    if flags & (_VERSION | _RESERVED):
        raise BitstreamError("SGC payload of another version")
    at, index, count = HEADER, 0, 1
    repeated = flags >> _REPEATS_SHIFT & 3
    if flags & _FRAGMENT:
        if len(payload) < at + 2:
            raise BitstreamError("SGC fragment header truncated")
        index, count, at = payload[at], payload[at + 1], at + 2
        if not 2 <= count <= FRAGMENTS_MAX or index >= count or repeated:
            raise BitstreamError("SGC fragment header impossible")
    feedback = b""
    if flags & _FEEDBACK:
        if len(payload) < at + 1 or len(payload) < at + 1 + payload[at]:
            raise BitstreamError("SGC feedback truncated")
        feedback = payload[at + 1 : at + 1 + payload[at]]
        at += 1 + len(feedback)
    repeats = []
    for _ in range(repeated):
        size, at = _read_varint(payload, at)
        if at + size > len(payload):
            raise BitstreamError("SGC repeated message truncated")
        repeats.append(payload[at : at + size])
        at += size
    return Packet(number, delay, index, count, payload[at:], tuple(repeats), feedback)


def _repeats_that_fit(repeats: tuple[bytes, ...], room: int) -> list[bytes]:
    kept: list[bytes] = []
    for old in repeats[:REPEATS_MAX]:
        room -= len(old) + len(_varint(len(old)))
        if room < 0:
            break
        kept.append(old)
    return kept


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([0x80 | value >> 8, value & 0xFF])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise BitstreamError("SGC length truncated")
    if data[at] < 0x80:
        return data[at], at + 1
    if at + 1 >= len(data):
        raise BitstreamError("SGC length truncated")
    return (data[at] & 0x7F) << 8 | data[at + 1], at + 2

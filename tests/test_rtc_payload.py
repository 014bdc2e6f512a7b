"""The RTP payload: everything that goes in comes out, and nothing that comes in does harm."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamgc.errors import BitstreamError
from streamgc.rtc.payload import MESSAGE_MAX, PAYLOAD_MAX, packetise, parse_packet

messages = st.binary(max_size=6000)


@given(
    number=st.integers(0, 1 << 20),
    message=messages,
    delay=st.integers(-5, 1000),
    repeats=st.lists(st.binary(max_size=700), max_size=3),
    feedback=st.binary(max_size=255),
)
def test_what_goes_in_comes_out(number: int, message: bytes, delay: int, repeats: list[bytes], feedback: bytes) -> None:
    payloads = packetise(number, message, delay, tuple(repeats), feedback)
    assert all(len(payload) <= PAYLOAD_MAX for payload in payloads)
    packets = [parse_packet(payload) for payload in payloads]
    assert b"".join(packet.body for packet in packets) == message
    assert [packet.fragment for packet in packets] == list(range(len(packets)))
    assert {packet.fragments for packet in packets} == {len(packets)}
    assert {packet.number for packet in packets} == {number & 0xFF}
    assert packets[0].feedback == feedback
    assert packets[0].delay_ms == min(255, max(0, delay))
    carried = packets[0].repeats
    assert carried == tuple(repeats[: len(carried)])


def test_small_messages_take_three_bytes_of_header_and_keep_their_repeats() -> None:
    (payload,) = packetise(7, b"x" * 60, 20, (b"y" * 50, b"z" * 200))
    assert len(payload) == 3 + 60 + 1 + 50 + 2 + 200
    assert parse_packet(payload).repeats == (b"y" * 50, b"z" * 200)


def test_repeats_give_way_before_the_message_is_cut() -> None:
    (payload,) = packetise(7, b"x" * 1000, 0, (b"y" * 100, b"z" * 300))
    assert parse_packet(payload).repeats == (b"y" * 100,)
    assert len(packetise(7, b"x" * 1198, 0, (b"y",))) == 2


def test_what_cannot_be_carried_is_refused() -> None:
    assert len(packetise(0, bytes(MESSAGE_MAX), feedback=bytes(255))) <= 64
    with pytest.raises(BitstreamError, match="longer than RTP carries"):
        packetise(0, bytes(MESSAGE_MAX + 1))
    with pytest.raises(BitstreamError, match="feedback"):
        packetise(0, b"", feedback=bytes(256))


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x80\0\0")
@example(b"\x40\0\0\x05\x02")
@example(b"\x08\0\0\xff")
@example(b"\x30\0\0\xff")
def test_any_bytes_parse_or_raise_our_error(data: bytes) -> None:
    try:
        packet = parse_packet(data)
    except BitstreamError:
        return
    assert len(packet.body) + sum(map(len, packet.repeats)) + len(packet.feedback) < len(data)
    assert 0 <= packet.fragment < packet.fragments <= 64

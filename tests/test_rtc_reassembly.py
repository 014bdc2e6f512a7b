"""Messages come out in order and once, whatever the network does to their packets."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.errors import BitstreamError
from streamgc.rtc.payload import packetise, parse_packet
from streamgc.rtc.reassembly import WINDOW, Message, Reassembler

MS = 1_000_000


def stream(count: int, size: int = 20, depth: int = 0, first: int = 0) -> list[list[bytes]]:
    """Payloads of each of `count` messages; message n is n's bytes, padded."""
    bodies = [number.to_bytes(4, "big").ljust(size, b".") for number in range(first + count)]
    return [
        packetise(number, bodies[number], 0, tuple(bodies[max(0, number - depth) : number][::-1]))
        for number in range(first, first + count)
    ]


def number_of(message: Message) -> int:
    return int.from_bytes(message.data[:4], "big")


def test_in_order_at_once() -> None:
    reassembler = Reassembler()
    for number, (payload,) in enumerate(stream(600)):
        (message,) = reassembler.push(parse_packet(payload), number + 65_000 & 0xFFFF, number * MS)
        assert message.number == number_of(message) == number
    assert reassembler.counts.delivered == 600
    assert reassembler.counts.lost == reassembler.counts.late == reassembler.counts.duplicate == 0


def test_a_late_packet_is_waited_for_and_then_given_up() -> None:
    reassembler = Reassembler(patience_ns=20 * MS)
    packets = [parse_packet(payload) for (payload,) in stream(4)]
    assert len(reassembler.push(packets[0], 0, 0)) == 1
    assert reassembler.push(packets[2], 2, 10 * MS) == []
    assert reassembler.missing() == [1]
    assert reassembler.deadline_ns() == 30 * MS
    assert [m.number for m in reassembler.push(packets[1], 1, 25 * MS)] == [1, 2]
    assert reassembler.counts.reordered == 1
    reassembler = Reassembler(patience_ns=20 * MS)
    reassembler.push(packets[0], 0, 0)
    reassembler.push(packets[2], 2, 10 * MS)
    assert reassembler.expire(29 * MS) == []
    assert [m.number for m in reassembler.expire(30 * MS)] == [2]
    assert reassembler.push(packets[1], 1, 40 * MS) == []
    assert (reassembler.counts.lost, reassembler.counts.late) == (1, 1)
    assert reassembler.push(packets[1], 1, 41 * MS) == []
    assert reassembler.counts.duplicate == 1


def test_repeats_fill_gaps_without_waiting() -> None:
    reassembler = Reassembler()
    got: list[int] = []
    for number, (payload,) in enumerate(stream(90, depth=2)):
        if number % 3 != 2 and number:
            continue  # two of three packets lost
        got += [m.number for m in reassembler.push(parse_packet(payload), number, number * 66 * MS)]
    assert got == list(range(90))
    assert reassembler.counts.recovered == 90 - 31
    assert reassembler.counts.lost == 0


def test_fragments_in_any_order_and_a_missing_one() -> None:
    reassembler = Reassembler(patience_ns=0)
    whole, broken = stream(2, size=3000)
    order = [2, 0, 1]
    out = [reassembler.push(parse_packet(whole[i]), i, i) for i in order]
    assert [len(messages) for messages in out] == [0, 0, 1]
    assert len(out[2][0].data) == 3000
    reassembler.push(parse_packet(broken[0]), 3, 10)
    (after,) = reassembler.push(parse_packet(packetise(2, b"\0\0\0\2")[0]), 6, 20)
    assert after.number == 2
    assert reassembler.counts.lost == 1


def test_an_outage_of_any_length_costs_only_what_was_sent_meanwhile() -> None:
    for gap in (1, 31, 32, 33, 127, 128, 200, 255, 256, 300, 5000):
        reassembler = Reassembler()
        for number in (0, 1, gap + 2, gap + 3):
            (payload,) = packetise(number, number.to_bytes(4, "big"))
            messages = reassembler.push(parse_packet(payload), number & 0xFFFF, number * 66 * MS)
            messages += reassembler.expire(number * 66 * MS + 60 * MS)
            assert [m.number for m in messages] == [number], gap
        assert reassembler.counts.lost == gap


def test_pieces_of_messages_that_were_given_up_are_not_kept() -> None:
    reassembler = Reassembler()
    for first in range(0, 3000, 300):
        for number in range(first, first + WINDOW - 1):
            piece = packetise(number & 0xFF, bytes(4000))[0]
            reassembler.push(parse_packet(piece), number & 0xFFFF, first * 66 * MS)
    assert len(reassembler._pieces) <= 2 * WINDOW


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1 << 30), loss=st.floats(0, 0.6), depth=st.integers(0, 2), size=st.sampled_from([20, 1500]))
def test_any_network_gives_a_rising_sequence_of_true_messages(seed: int, loss: float, depth: int, size: int) -> None:
    chance = random.Random(seed)
    flight: list[tuple[float, int, bytes]] = []
    sequence = 0
    for number, payloads in enumerate(stream(120, size, depth)):
        for payload in payloads:
            if chance.random() >= loss:
                for _ in range(1 + (chance.random() < 0.1)):
                    flight.append((number * 66 + chance.gauss(40, 20), sequence, payload))
            sequence += 1
    reassembler = Reassembler()
    got: list[Message] = []
    for at, order, payload in sorted(flight):
        got += reassembler.push(parse_packet(payload), order, int(at * MS))
        assert len(reassembler.missing()) <= WINDOW
    got += reassembler.expire(1 << 60)
    numbers = [message.number for message in got]
    assert numbers == sorted(set(numbers))
    shift = number_of(got[0]) - numbers[0] if got else 0
    assert all(number_of(message) == message.number + shift for message in got)
    assert shift % 256 == 0


@settings(max_examples=200)
@given(st.lists(st.tuples(st.binary(min_size=3, max_size=40), st.integers(0, 0xFFFF)), max_size=60))
def test_hostile_packets_stay_bounded(packets: list[tuple[bytes, int]]) -> None:
    reassembler = Reassembler()
    last = -1
    for at, (payload, sequence) in enumerate(packets):
        try:
            packet = parse_packet(bytes([payload[0] & 0x7F]) + payload[1:])
        except BitstreamError:
            continue
        for message in reassembler.push(packet, sequence, at * 10 * MS):
            assert message.number > last
            last = message.number
    assert len(reassembler._complete) <= 2 * WINDOW
    assert len(reassembler._pieces) <= 2 * WINDOW
    assert len(reassembler._given_up) <= 8 * WINDOW

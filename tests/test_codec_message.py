"""Frame messages: every combination of sections, sizes, and hostile bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.codec.message import Background, Kind, Message, unpack
from streamgc.codec.sections import Crop, Feedback, Held, Part, PartKind, pack_feedback, parse_feedback
from streamgc.codec.symbols import LAYOUTS
from streamgc.errors import BitstreamError
from tests.codec_strategies import quick

byte = st.integers(0, 255)
kinds_of_part = st.sampled_from(list(PartKind))
feedbacks = st.builds(Feedback, byte, st.integers(0, 15), st.none() | st.integers(0, 7))
held_slices = st.builds(Held, kinds_of_part, st.integers(0, 15), st.integers(0, 4096), st.integers(0, 2**64 - 1))


@st.composite
def some_parts(draw: st.DrawFn) -> Part:
    count = draw(st.integers(1, 4096))
    index = draw(st.integers(0, count - 1))
    return Part(draw(kinds_of_part), draw(st.integers(0, 15)), index, count, draw(st.binary(max_size=300)))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kind = draw(st.sampled_from(list(Kind)))
    picture = kind is Kind.PICTURE
    return Message(
        kind=kind,
        number=draw(byte),
        background=draw(st.sampled_from(list(Background))),
        age=0 if kind is Kind.NONE else draw(st.integers(int(kind is Kind.SKIP), 7)),
        key=draw(st.integers(0, 7)) if picture else 0,
        layout=draw(st.sampled_from(LAYOUTS)) if picture else 0,
        picture=draw(st.binary(max_size=200)) if picture else b"",
        feedback=draw(st.none() | feedbacks),
        crop=draw(st.none() | st.builds(Crop, st.integers(0, 2047), st.integers(0, 2047), st.integers(1, 1024))),
        report=draw(st.none() | st.binary(max_size=200)),
        held=tuple(draw(st.lists(held_slices, max_size=16))),
        previous=tuple(draw(st.lists(st.binary(min_size=1, max_size=200), max_size=4))),
        parts=tuple(draw(st.lists(some_parts(), max_size=5))),
    )


@quick
@given(messages())
def test_round_trip(message: Message) -> None:
    assert unpack(message.pack()) == message


@quick
@given(messages(), messages())
def test_a_message_carries_the_one_before(message: Message, before: Message) -> None:
    repeated = before.essential().pack()
    assert unpack(unpack(Message(Kind.NONE, 1, Background.SYNTH, previous=(repeated,)).pack()).previous[0]) == (
        before.essential()
    )
    assert message.essential().feedback is None
    assert message.essential().picture == message.picture


def test_sizes() -> None:
    picture = Message(Kind.PICTURE, 9, Background.MEMORY, 3, 5, 4, b"12345")
    assert len(picture.pack()) == 3 + 5
    assert len(Message(Kind.SKIP, 9, Background.MEMORY, 1).pack()) == 2
    assert len(Message(Kind.NONE, 9, Background.MEMORY, feedback=Feedback(1, 0, None)).pack()) == 3 + 2
    with_feedback = Message(Kind.PICTURE, 9, Background.MEMORY, 3, 5, 4, b"12345", feedback=Feedback(1, 0, 3))
    assert len(with_feedback.pack()) == 3 + 2 + 5
    nested = Message(Kind.PICTURE, 10, Background.MEMORY, 3, 5, 4, b"12345", previous=(picture.pack(),))
    assert len(nested.pack()) == 3 + 1 + 8 + 5
    part = Message(Kind.NONE, 9, Background.MEMORY, parts=(Part(PartKind.KEY, 1, 0, 9, b"123"),))
    assert len(part.pack()) == 3 + 1 + 1 + 3 + 3


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_error(data: bytes) -> None:
    try:
        message = unpack(data)
    except BitstreamError:
        return
    assert message.pack() == data


@quick
@given(messages(), st.lists(st.tuples(st.integers(0, 10_000), byte), max_size=4), st.integers(-9, 9))
def test_mutated_messages_are_a_message_or_one_error(message: Message, edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(message.pack())
    for position, value in edits:
        data[position % len(data)] = value
    mutated = bytes(data[: len(data) + cut]) if cut < 0 else bytes(data) + bytes(cut)
    try:
        again = unpack(mutated)
    except BitstreamError:
        return
    assert again.pack() == mutated


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xc0\x00",  # unknown kind
        b"\x00\x00",  # picture without its third byte
        b"\x80\x00\x00",  # a byte too many
        b"\x81\x00\x00",  # a third byte that says nothing
        b"\x81\x00\x01\x00",  # a flags byte that says nothing
        b"\x81\x00\x01\x10",  # a flag that does not exist
        b"\x40\x00",  # a skip of no frame
        b"\x82\x00",  # no picture, but a reference
        b"\x81\x00\x04\x00\x0f",  # a key number 15 in the feedback
        b"\x81\x00\x01\x08\x01\xf0\x00\x01",  # an unknown kind of part
        b"\x81\x00\x01\x08\x01\x00\x02\x02",  # slice 2 of 2
        b"\x81\x00\x01\x08\xff\xff\xff\xff\x0f",  # four thousand million parts
        b"\x81\x00\x02\x81\x00a",  # an earlier message whose length is spelt too long
        bytes(1 << 17),
    ],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        unpack(data)


@pytest.mark.parametrize(
    "message",
    [
        Message(Kind.PICTURE, 0, Background.SYNTH, layout=3),
        Message(Kind.PICTURE, 256, Background.SYNTH, layout=2),
        Message(Kind.PICTURE, 0, Background.SYNTH, key=8, layout=2),
        Message(Kind.PICTURE, 0, Background.SYNTH, layout=2, picture=bytes(1 << 16)),
        Message(Kind.SKIP, 0, Background.SYNTH),
        Message(Kind.NONE, 0, Background.SYNTH, picture=b"x"),
        Message(Kind.NONE, 0, Background.SYNTH, crop=Crop(0, 0, 0)),
        Message(Kind.NONE, 0, Background.SYNTH, feedback=Feedback(0, 16, None)),
        Message(Kind.NONE, 0, Background.SYNTH, previous=(b"",)),
        Message(Kind.NONE, 0, Background.SYNTH, held=(Held(PartKind.KEY, 0, 0, 1),) * 17),
        Message(Kind.NONE, 0, Background.SYNTH, held=(Held(PartKind.KEY, 0, 0, 1 << 64),)),
        Message(Kind.NONE, 0, Background.SYNTH, parts=(Part(PartKind.KEY, 0, 1, 1, b""),)),
    ],
)
def test_impossible_messages_are_refused(message: Message) -> None:
    with pytest.raises(ValueError):
        message.pack()


@quick
@given(feedbacks, st.lists(held_slices, max_size=5))
def test_feedback_on_its_own(feedback: Feedback, held: list[Held]) -> None:
    assert parse_feedback(pack_feedback(feedback, held)) == (feedback, tuple(held))


@quick
@given(st.binary(max_size=60))
def test_any_bytes_are_a_feedback_or_one_error(data: bytes) -> None:
    try:
        feedback, held = parse_feedback(data)
    except BitstreamError:
        return
    assert parse_feedback(pack_feedback(feedback, held)) == (feedback, held)


def test_feedback_confirms_what_it_says() -> None:
    feedback = Feedback(1, 0b0101, None)
    held = [number for number in range(256) if feedback.holds(number)]
    assert held == [0, 1, 254]

"""Sender and receiver together, over links that lose, with networks that are simple enough to check."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgc.codec.message import Background, Kind, unpack
from streamgc.codec.sections import Feedback, PartKind, pack_feedback
from streamgc.errors import BitstreamError
from streamgc.pipeline.history import unwrap
from streamgc.pipeline.keys import COARSE_BYTES, KeySource, start_chain
from streamgc.pipeline.receiver import Receiver
from streamgc.pipeline.sender import Sender
from tests.pipeline_fakes import FORMAT, BoxEyes, moving, receiver, sender


def talk(
    tx: Sender, rx: Receiver, count: int, lost: set[int] | None = None, delay: int = 2, start: int = 0, seed: int = 0
) -> tuple[list[int], list[int], list[float]]:
    """Frames ``start`` … of a call: numbers shown, message sizes, and the person's mean error in grey levels."""
    late: deque[tuple[int, bytes]] = deque()
    shown, sizes, errors = [], [], []
    for number, picture in enumerate(moving(count, seed), start):
        while late and late[0][0] <= number:
            tx.feedback(late.popleft()[1])
        sent = tx.encode(picture, number)
        sizes.append(len(sent.message))
        if lost and number in lost:
            continue
        taken = rx.receive(sent.message)
        if taken.needs_intra:
            tx.request_intra()
        late.append((number + delay, taken.feedback))
        now = rx.render()
        if now is not None:
            shown.append(now.number)
            inside = now.person[..., 3] > 0
            errors.append(float(np.abs(now.person[..., :3].astype(int) - picture)[inside].mean()))
    return shown, sizes, errors


def test_every_frame_is_shown_from_the_first_on() -> None:
    shown, sizes, errors = talk(sender(), receiver(), 60)
    assert shown == list(range(60))
    assert max(errors[20:]) < 12
    assert max(sizes) <= 1200


def test_the_first_message_holds_a_coarse_key_in_one_packet() -> None:
    message = unpack(sender().encode(moving(1)[0], 0).message)
    coarse = [part for part in message.parts if part.kind is PartKind.COARSE_KEY]
    assert len(coarse) == 1
    assert len(coarse[0].payload) <= COARSE_BYTES


def test_losses_do_not_spread() -> None:
    lost = set(range(20, 24)) | {30, 33, 36, 40, 41}
    shown, _, errors = talk(sender(), receiver(), 70, lost)
    assert shown == [n for n in range(70) if n not in lost]
    assert max(errors[25:]) < 12


@settings(max_examples=12, deadline=None)
@given(pattern=st.lists(st.booleans(), min_size=60, max_size=60), delay=st.integers(0, 9))
def test_any_loss_pattern_shows_what_arrives(pattern: list[bool], delay: int) -> None:
    lost = {n for n, gone in enumerate(pattern) if gone and n > 0}
    shown, _, _ = talk(sender(), receiver(), 60, lost, delay)
    assert len(shown) >= 0.9 * (60 - len(lost))


def test_the_rate_is_kept() -> None:
    _, sizes, _ = talk(sender(kbps=8.0), receiver(), 150)
    assert sum(sizes[60:]) * 15 * 8 / 90 / 1000 < 8.8


def test_a_receiver_that_comes_late_gets_a_new_start() -> None:
    tx = sender()
    talk(tx, receiver(), 30)
    shown, _, _ = talk(tx, receiver(), 40, start=30, seed=1)
    assert shown
    assert shown[-1] == 69


def test_who_turns_back_is_shown_with_the_key_of_before() -> None:
    """Two poses in turn, long enough for a key each: later turns need no new key, and each pose has its own."""
    tx, rx = sender(kbps=60.0), receiver()
    poses = [moving(1, seed)[0] for seed in (3, 4)]
    used: list[int] = []
    keys_sent: set[int] = set()
    after_two = 0
    for number in range(160):
        sent = tx.encode(poses[number // 40 % 2], number)
        message = unpack(sent.message)
        keys = {part.object_id for part in message.parts if part.kind is PartKind.KEY}
        keys_sent |= keys
        after_two += number >= 100 and bool(keys)
        tx.feedback(rx.receive(sent.message).feedback)
        now = rx.render()
        assert now is not None
        assert now.number == number
        used.append(message.key)
    assert len(keys_sent) >= 2
    assert after_two == 0
    assert used[119] == used[39] != used[79] == used[159]


def test_a_late_word_of_an_older_key_changes_nothing() -> None:
    keys = KeySource(FORMAT, crf=42)
    keys.make_coarse(moving(1)[0])
    numbers = [keys.begin(start_chain(42, moving(1)[0]))[0]]
    for seed in (1, 2):
        assert keys.confirm(numbers[-1])
        numbers.append(keys.make(moving(1, seed)[0])[0])
    assert [key.number for key in keys.choice] == numbers[:2]
    assert keys.confirm(numbers[2])
    assert not keys.confirm(numbers[0])
    assert [key.number for key in keys.choice] == numbers


def test_an_intra_request_brings_a_coarse_key() -> None:
    tx, rx = sender(), receiver()
    talk(tx, rx, 20)
    tx.request_intra()
    message = unpack(tx.encode(moving(1)[0], 20).message)
    assert any(part.kind is PartKind.COARSE_KEY for part in message.parts)
    assert message.age == 0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), mode=st.sampled_from([Background.PRIVATE, Background.REPLACE]))
def test_bytes_do_not_depend_on_pixels_outside_the_mask(seed: int, mode: Background) -> None:
    """Design decision 3: same mask, references, state and settings; other rooms; the same messages."""
    random = np.random.default_rng(seed)
    eyes = [BoxEyes(), BoxEyes()]
    pair = [sender(mode, eyes=e) for e in eyes]
    far = receiver()
    for number, picture in enumerate(moving(12)):
        outside = np.ones(picture.shape[:2], bool)
        top, bottom, left, right = eyes[0].box
        outside[top:bottom, left:right] = False
        other = picture.copy()
        other[outside] = random.integers(0, 256, (int(outside.sum()), 3))
        first, second = (tx.encode(p, number) for tx, p in zip(pair, (picture, other), strict=True))
        assert first.message == second.message
        feedback = far.receive(first.message).feedback
        for tx in pair:
            tx.feedback(feedback)
        for e in eyes:
            e.box = (24 - number, 96, 40 + number, 104)


def test_a_stricter_mode_drops_what_the_receiver_has_of_the_room() -> None:
    tx, rx = sender(Background.MEMORY), receiver()
    talk(tx, rx, 90)
    tx.set_background(Background.PRIVATE)
    message = unpack(tx.encode(moving(1)[0], 90).message)
    assert message.background is Background.PRIVATE
    assert message.age == 0
    assert any(part.kind is PartKind.COARSE_KEY for part in message.parts)
    assert not any(part.kind is PartKind.ROOM for part in message.parts)


@pytest.mark.parametrize("other", [Background.PRIVATE, Background.REPLACE, Background.SYNTH])
def test_a_room_that_has_left_in_part_leaves_no_further(other: Background) -> None:
    tx, rx = sender(Background.MEMORY, kbps=3.0), receiver()
    still = moving(1)[0]
    number, begun = 0, False
    while not begun:  # until the first slice of the room, which the receiver never reports
        message = tx.encode(still, number).message
        begun = any(part.kind is PartKind.ROOM for part in unpack(message).parts)
        tx.feedback(rx.receive(message).feedback)
        number += 1
        assert number < 200
    tx.set_background(other)
    for later in range(number, number + 90):
        message = tx.encode(still, later).message
        assert not any(part.kind is PartKind.ROOM for part in unpack(message).parts)
        tx.feedback(rx.receive(message).feedback)


@pytest.mark.parametrize("gap", [100, 130, 200, 238])
def test_pictures_are_shown_after_an_outage_of_seconds(gap: int) -> None:
    tx, rx = sender(), receiver()
    lost = set(range(30, 30 + gap))
    shown, _, _ = talk(tx, rx, 30 + gap + 20, lost)
    assert shown[:30] == list(range(30))
    assert shown[30:] == list(range(30 + gap, 30 + gap + 20))


def test_a_report_of_what_was_never_sent_changes_nothing() -> None:
    tx, rx = sender(), receiver()
    talk(tx, rx, 20)
    tx.feedback(pack_feedback(Feedback(27, 0b1111, None)))
    for number, picture in enumerate(moving(12), 20):
        message = unpack(tx.encode(picture, number).message)
        assert number - message.age < 20 or message.age == 0


def test_memory_sends_a_small_room_after_three_seconds() -> None:
    tx, rx = sender(Background.MEMORY), receiver()
    still = moving(1)[0]
    rooms = bytearray()
    for number in range(90):
        sent = tx.encode(still, number)
        for part in unpack(sent.message).parts:
            if part.kind is PartKind.ROOM:
                assert number >= 45
                rooms += part.payload
        tx.feedback(rx.receive(sent.message).feedback)
    assert 0 < len(rooms) <= 2 * 2000
    shown = rx.render()
    assert shown is not None
    corner = shown.picture[:16, :16].astype(int)
    assert np.abs(corner - still[:16, :16]).mean() < 12


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_damaged_messages_raise_and_the_call_goes_on(cut: int) -> None:
    tx, rx = sender(), receiver()
    pictures = moving(30)
    for number, picture in enumerate(pictures):
        sent = tx.encode(picture, number)
        if number == 10:
            with pytest.raises(BitstreamError):
                rx.receive(b"\xff" * cut)
        tx.feedback(rx.receive(sent.message).feedback)
    shown = rx.render()
    assert shown is not None
    assert shown.number == 29


def test_a_message_of_no_picture_is_no_missing_picture() -> None:
    rx = receiver()
    empty = unpack(sender().encode(moving(1)[0], 0).message)
    assert empty.kind is Kind.PICTURE
    assert rx.render() is None


@given(number=st.integers(0, 10_000), drift=st.integers(-120, 120))
def test_numbers_unwrap_to_the_nearest(number: int, drift: int) -> None:
    assert unwrap((number + drift) % 256, number) == number + drift


def test_format_is_checked() -> None:
    assert FORMAT.grid == (6, 8)

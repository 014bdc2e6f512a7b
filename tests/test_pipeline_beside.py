"""What is coded beside the call – a room, the first key – is what coding it at once gives, and never sent once it was
forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np

from streamgc.codec.message import unpack
from streamgc.codec.sections import PartKind
from streamgc.codec.still import decode_still
from streamgc.pipeline.looking import View
from streamgc.pipeline.room import SAMPLES, Room, RoomCollector, code_room
from streamgc.pipeline.sender import Sender
from streamgc.pipeline.settings import PictureFormat
from tests.pipeline_fakes import moving, sender

FORMAT = PictureFormat(64, 64)
FPS = 2.0  # a sample of the room at every picture


def views(count: int) -> list[View]:
    """A still room, and a person in the middle of it."""
    y, x = np.mgrid[:64, :64]
    picture = np.stack([2 * x + 40, 2 * y + 40, x + y], -1).astype(np.uint8)
    matte = np.zeros((64, 64), np.uint8)
    matte[24:, 24:40] = 255
    cells = matte.reshape(4, 16, 4, 16).max((1, 3)) > 0
    return [View(picture, matte, cells, np.ones((4, 4), np.uint8), None, 1) for _ in range(count)]


def rooms(collector: RoomCollector, count: int) -> list[Room]:
    return [room for view in views(count) if (room := collector.see(view)) is not None]


def test_the_same_room_comes_a_little_later() -> None:
    (at_once,) = rooms(RoomCollector(FORMAT, FPS), SAMPLES + 1)
    with ThreadPoolExecutor(1) as executor:
        collector = RoomCollector(FORMAT, FPS, executor)
        assert rooms(collector, SAMPLES) == []
        executor.submit(int).result()  # behind the room's coding
        (later,) = rooms(collector, 1)
    assert later == at_once


def test_a_forgotten_room_is_not_sent() -> None:
    with ThreadPoolExecutor(1) as executor:
        collector = RoomCollector(FORMAT, FPS, executor)
        assert rooms(collector, SAMPLES) == []
        collector.clear()
        executor.submit(int).result()
        assert rooms(collector, SAMPLES - 1) == []


def test_somebody_who_is_not_kept_is_no_part_of_the_room() -> None:
    guest = np.zeros((64, 64), np.uint8)
    guest[30:, 4:14] = 200
    for somebody, there in ((None, True), (guest, False)):
        collector = RoomCollector(FORMAT, FPS)
        for view in views(SAMPLES):
            picture = view.picture.copy()
            picture[guest > 0] = (250, 20, 20)
            collector.see(view._replace(picture=picture, somebody=somebody))
        room = code_room(collector._room, collector._known)
        assert room is not None
        shown = decode_still(room, 64, 64)
        assert (shown[40:60, 6:12, 0].mean() > 200) == there
        assert collector._known[:20, 20:44].all()  # the rest is known as before


def first_key(tx: Sender, number: int) -> bytes:
    """The slices of keys in the next message, a still picture's."""
    message = unpack(tx.encode(moving(1)[0], number).message)
    return b"".join(part.payload for part in message.parts if part.kind is PartKind.KEY)


def test_the_same_first_key_comes_a_little_later() -> None:
    at_once = sender()
    assert first_key(at_once, 0) == b""  # only the coarse one
    key = first_key(at_once, 1)
    with ThreadPoolExecutor(1) as executor:
        held = Event()
        executor.submit(held.wait)
        beside = sender(executor=executor)
        assert [first_key(beside, number) for number in range(4)] == [b""] * 4
        held.set()
        executor.submit(int).result()  # behind the key's coding
        assert first_key(beside, 4) == key != b""
        assert first_key(beside, 5) == b""


def test_a_first_key_is_forgotten_when_the_receiver_has_lost_its_state() -> None:
    with ThreadPoolExecutor(1) as executor:
        beside = sender(executor=executor)
        for number in range(2):
            beside.encode(moving(1)[0], number)
        executor.submit(int).result()
        beside.request_intra()
        message = unpack(beside.encode(moving(1)[0], 2).message)
        assert {part.kind for part in message.parts} == {PartKind.COARSE_KEY}
        assert first_key(beside, 3) == b""
        executor.submit(int).result()
        assert first_key(beside, 4) != b""

"""Coding a room beside the call gives the room that coding it at once gives, and never one that was forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from streamgc.pipeline.looking import View
from streamgc.pipeline.room import SAMPLES, Room, RoomCollector
from streamgc.pipeline.settings import PictureFormat

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

"""Two sessions over a real rendezvous server and real aiortc; only the picture codec is faked."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from streamgc.call.rendezvous import make_room
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.session import Event, Hooks, Session, SessionOptions
from streamgc.errors import PeerUnreachable, SignallingError
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.pictures import Captured
from streamgc.rtc.snapshot import Snapshots
from streamgc.rtc.statistics import Statistics, from_json_line, to_json_line
from tests.rtc_fakes import FakeCodec


@dataclass
class Side:
    session: Session
    events: list[Event] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)


def side(server: str, room: str, codec: FakeCodec | None = None) -> Side:
    options = SessionOptions(server, room, ConnectionOptions(model=""))
    events: list[Event] = []
    shown: list[int] = []
    statistics: list[Statistics] = []

    def on_statistics(one: Statistics, snapshots: Snapshots) -> None:
        statistics.append(one)

    hooks = Hooks(
        shown=lambda picture, number, at_ns: shown.append(-1 if number is None else number),
        event=lambda event, text: events.append(event),
        statistics=on_statistics,
    )
    return Side(Session(options, codec or FakeCodec(), hooks), events, shown, statistics)


async def frames(count: int, fps: float = 30.0) -> AsyncIterator[Captured]:
    for position in range(count):
        yield Captured(np.full((16, 16, 3), position % 256, np.uint8), time.monotonic_ns(), position)
        await asyncio.sleep(1 / fps)


@asynccontextmanager
async def room() -> AsyncIterator[tuple[str, str]]:
    async with local_server(SignalingOptions(port=0)) as server:
        yield server, await make_room(server)


async def test_a_call_from_joining_to_leaving() -> None:
    async with room() as (server, token):
        alice, bob = side(server, token), side(server, token)
        calls = asyncio.gather(alice.session.run(), bob.session.run(), alice.session.send_all(frames(45)))
        await asyncio.wait_for(calls, 15)
        assert len(bob.shown) >= 40
        assert bob.shown == sorted(bob.shown)
        assert Event.LEFT in bob.events
        assert Event.CONNECTED in alice.events
        last = alice.statistics[-1]
        assert last.sent.frames_sent >= 40
        assert last.sent.kbps_onwire > last.sent.kbps_payload > 0
        assert from_json_line(to_json_line(last)) == last


async def test_another_model_falls_back_to_a_conventional_codec() -> None:
    async with room() as (server, token):
        alice, bob = side(server, token), side(server, token, FakeCodec("00000000000000bb"))
        sending = alice.session.send_all(frames(60))
        await asyncio.wait_for(asyncio.gather(alice.session.run(), bob.session.run(), sending), 15)
        assert bob.shown.count(-1) > 5
        notes = {one.note for one in alice.statistics + bob.statistics}
        assert any("model" in note and "conventional" in note for note in notes)
        assert {one.codec for one in bob.statistics if one.codec} == {"VP8"}


async def test_a_broken_connection_is_replaced_under_the_same_room() -> None:
    async with room() as (server, token):
        alice, bob = side(server, token), side(server, token)
        running = asyncio.gather(alice.session.run(), bob.session.run())
        await asyncio.wait_for(asyncio.gather(alice.session.connected.wait(), bob.session.connected.wait()), 10)
        assert bob.session.connection is not None
        await bob.session.connection.pc.close()  # as if the address had gone
        end = time.monotonic() + 15
        while alice.events.count(Event.CONNECTED) < 2 or bob.events.count(Event.CONNECTED) < 2:
            assert time.monotonic() < end, (alice.events, bob.events)
            await asyncio.sleep(0.05)
        bob.shown.clear()
        await asyncio.gather(alice.session.send_all(frames(20)), asyncio.wait_for(running, 10))
        assert len(bob.shown) > 10


async def test_a_failed_attempt_to_come_back_does_not_end_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[str] = []

    class Unlucky(Connection):
        async def offer(self) -> str:
            if broken and not failures:
                failures.append("offer")
                raise PeerUnreachable("no way to the other side")
            return await super().offer()

    broken = False
    monkeypatch.setattr("streamgc.call.session.Connection", Unlucky)
    async with room() as (server, token):
        alice, bob = side(server, token), side(server, token)
        running = asyncio.gather(alice.session.run(), bob.session.run())
        await asyncio.wait_for(asyncio.gather(alice.session.connected.wait(), bob.session.connected.wait()), 10)
        broken = True
        assert bob.session.connection is not None
        await bob.session.connection.pc.close()
        end = time.monotonic() + 20
        while alice.events.count(Event.CONNECTED) < 2 or bob.events.count(Event.CONNECTED) < 2:
            assert not running.done(), "the call has ended"
            assert time.monotonic() < end, (alice.events, bob.events)
            await asyncio.sleep(0.05)
        assert failures
        assert Event.LEFT not in alice.events + bob.events
        alice.session.stop()
        await asyncio.wait_for(running, 10)


async def test_a_third_caller_is_told() -> None:
    async with room() as (server, token):
        alice, bob, carol = (side(server, token) for _ in range(3))
        running = asyncio.gather(alice.session.run(), bob.session.run())
        await asyncio.wait_for(asyncio.gather(alice.session.connected.wait(), bob.session.connected.wait()), 10)
        with pytest.raises(SignallingError, match="two people"):
            await carol.session.run()
        alice.session.stop()
        await asyncio.wait_for(running, 10)

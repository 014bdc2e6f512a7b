"""Two real aiortc peers; only the picture codec and the wire are faked."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import pytest

from streamgc.errors import CallError, ModelMismatch, PeerUnreachable, SignallingError
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.pictures import Captured, Shown
from tests.rtc_fakes import FakeReceiver, FakeSender

MODEL = "0123456789abcdef"
OPTIONS = ConnectionOptions(model=MODEL)


@dataclass
class Pair:
    """Alice sends, Bob shows."""

    alice: Connection
    bob: Connection
    sender: FakeSender
    receiver: FakeReceiver
    shown: list[tuple[int, int]] = field(default_factory=list)  # number, time
    sent_ns: dict[int, int] = field(default_factory=dict)

    async def send(self, frames: int, fps: float = 60.0) -> None:
        start = time.monotonic()
        for position in range(frames):
            picture = np.full((16, 16, 3), position % 256, np.uint8)
            self.alice.put(Captured(picture, time.monotonic_ns(), position))
            await asyncio.sleep(max(0.0, start + (position + 1) / fps - time.monotonic()))

    def within(self, milliseconds: float) -> float:
        """Share of the frames sent that were shown within so many ms of capture."""
        shown = dict(self.shown)
        timely = [n for n, sent in self.sent_ns.items() if n in shown and shown[n] - sent <= milliseconds * 1e6]
        return len(timely) / len(self.sent_ns)


@asynccontextmanager
async def pair(
    impairment: Impairment | None = None,
    options: ConnectionOptions = OPTIONS,
    sender: FakeSender | None = None,
    receiver: FakeReceiver | None = None,
    bob_offers: bool = False,
) -> AsyncIterator[Pair]:
    sender, receiver = sender or FakeSender(), receiver or FakeReceiver()
    shown: list[tuple[int, int]] = []
    sent: dict[int, int] = {}
    backward = replace(impairment, seed=impairment.seed + 1000) if impairment else None
    alice = Connection(
        replace(options, impairment=impairment),
        sender=sender,
        on_sent=lambda number, captured, encoded: sent.update({number: captured.captured_ns}),
    )
    bob = Connection(
        replace(options, impairment=backward),
        receiver=receiver,
        on_shown=lambda picture, at_ns: shown.append((picture.number, at_ns)),
    )
    try:
        await (connect(bob, alice) if bob_offers else connect(alice, bob))
        yield Pair(alice, bob, sender, receiver, shown, sent)
    finally:
        await asyncio.gather(alice.close(), bob.close())


async def connect(first: Connection, second: Connection, timeout: float = 5.0) -> None:
    await first.accept(await second.answer(await first.offer()))
    await asyncio.gather(first.connected(timeout), second.connected(timeout))


async def until(condition: Callable[[], bool], timeout: float = 3.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "condition not met in time"
        await asyncio.sleep(0.01)


async def test_every_frame_arrives_in_order_and_looks_right() -> None:
    async with pair() as call:
        assert call.alice.codec == call.bob.codec == "SGC"
        await call.send(60)
        await until(lambda: len(call.receiver.numbers) == 60)
        assert call.receiver.numbers == list(range(60))
        assert call.within(50) > 0.9
        assert call.alice.errors == call.bob.errors == 0


@pytest.mark.parametrize("bob_offers", [False, True])
async def test_acknowledgements_come_back_without_reverse_video(bob_offers: bool) -> None:
    async with pair(bob_offers=bob_offers) as call:
        await call.send(60)
        assert call.sender.acknowledged > 20
        assert call.alice.outgoing is not None
        assert call.alice.outgoing.rtt_ms is not None
        assert call.alice.outgoing.rtt_ms < 50

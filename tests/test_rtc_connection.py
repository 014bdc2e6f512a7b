"""Two real aiortc peers; only the picture codec and the wire are faked."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import pytest
from aiortc.rtp import RtcpPsfbPacket, RtpPacket

from streamgc.errors import CallError, ModelMismatch, PeerUnreachable, SignallingError
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.pictures import Captured
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
            start = max(start, time.monotonic() - (position + 1) / fps)  # after a stall of the host, no burst
            await asyncio.sleep(max(0.5 / fps, start + (position + 1) / fps - time.monotonic()))

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


async def test_a_lost_picture_is_asked_for_again_by_pli() -> None:
    sender = FakeSender()
    sender.intra = False  # the first messages cannot be shown
    async with pair(sender=sender) as call:
        await call.send(30)
        await until(lambda: len(call.shown) > 3)
        assert sender.intra_numbers
        assert sender.intra_numbers[0] > 0
        assert call.alice.outgoing is not None
        assert 1 <= call.alice.outgoing.counts.intra_requested <= 2  # rate-limited, not one a message


async def test_loss_is_repaired_by_repeats() -> None:
    async with pair(Impairment(loss=0.2, delay_ms=40, jitter_ms=5, seed=3)) as call:
        await call.send(40, fps=30)  # until the first reports are in
        call.sent_ns.clear()
        await call.send(120, fps=30)
        await asyncio.sleep(0.2)
        assert call.within(150) >= 0.94
        assert call.receiver.numbers == sorted(set(call.receiver.numbers))
        assert call.alice.rate.depth >= 1
        assert call.alice.outgoing is not None
        assert call.alice.outgoing.counts.echoes > 30
        assert call.bob.incoming is not None
        assert call.bob.incoming.reassembler.counts.recovered > 5
        assert call.bob.incoming.freeze_ns(time.monotonic_ns()) < 0.6e9


async def test_reordering_and_duplicates_do_no_harm() -> None:
    async with pair(Impairment(delay_ms=5, reorder=0.2, seed=4)) as call:
        await call.send(60, fps=60)
        await asyncio.sleep(0.1)
        assert call.receiver.numbers == sorted(set(call.receiver.numbers))
        assert len(call.receiver.numbers) > 45


async def test_both_directions_at_once_let_feedback_ride() -> None:
    senders, receivers = [FakeSender(), FakeSender()], [FakeReceiver(), FakeReceiver()]
    alice, bob = (Connection(OPTIONS, sender=s, receiver=r) for s, r in zip(senders, receivers, strict=True))
    try:
        await connect(alice, bob)
        for position in range(60):
            for side in (alice, bob):
                side.put(Captured(np.zeros((16, 16, 3), np.uint8), time.monotonic_ns(), position))
            await asyncio.sleep(1 / 40)
        for sender, receiver in zip(senders, receivers, strict=True):
            assert len(receiver.numbers) > 50
            assert sender.acknowledged > 30
        assert alice.incoming is not None
        datagrams = bob.wire.datagrams_received
        assert datagrams < alice.incoming.counts.packets + 15  # next to no packet was only feedback
    finally:
        await asyncio.gather(alice.close(), bob.close())


@pytest.mark.parametrize("kind", ["encoder", "renderer"])
async def test_a_slow_codec_builds_no_delay(kind: str) -> None:
    sender = FakeSender(encode_s=0.1 if kind == "encoder" else 0)
    receiver = FakeReceiver(render_s=0.1 if kind == "renderer" else 0)
    async with pair(sender=sender, receiver=receiver) as call:
        await call.send(90, fps=45)
        await asyncio.sleep(0.35)
        late = [at - call.sent_ns[number] for number, at in call.shown]
        assert 12 <= len(late) <= 24
        assert max(late) < 0.4e9
        assert call.alice.outgoing is not None
        dropped = call.alice.outgoing.counts.dropped["replaced before encoding"]
        assert (dropped > 50) == (kind == "encoder")


async def test_a_failing_codec_costs_pictures_and_not_the_call() -> None:
    class Flaky(FakeSender):
        def encode(self, frame: np.ndarray, number: int, captured_at: int) -> object:  # type: ignore[override]
            if len(self.rates) % 3 == 0:
                raise RuntimeError("broken now and then")
            return super().encode(frame, number, captured_at)

    class Touchy(FakeReceiver):
        def receive(self, message: bytes, arrived_at: int) -> object:  # type: ignore[override]
            if len(self.numbers) == 5:
                self.numbers.append(-1)
                raise RuntimeError("broken once")
            return super().receive(message, arrived_at)

    async with pair(sender=Flaky(), receiver=Touchy()) as call:
        await call.send(45, fps=45)
        assert len(call.shown) > 20
        assert call.alice.outgoing is not None
        assert call.alice.outgoing.counts.dropped["failed to encode"] >= 10
        assert call.bob.incoming is not None
        assert call.bob.incoming.counts.dropped["failed to decode"] == 1
        assert call.alice.state == "connected"


async def test_a_codec_that_always_fails_ends_the_call_with_its_reason() -> None:
    class Broken(FakeSender):
        def encode(self, frame: np.ndarray, number: int, captured_at: int) -> object:  # type: ignore[override]
            raise RuntimeError("no engine")

    async with pair(sender=Broken()) as call:
        await call.send(30, fps=60)
        assert call.alice.state == "failed"
        assert "no engine" in (call.alice.failure or "")


async def test_hostile_packets_change_nothing() -> None:
    async with pair() as call:
        await call.send(5)
        transport = call.alice.pc.getSenders()[0].transport
        ssrc = call.alice.pc.getSenders()[0]._ssrc
        template = RtpPacket(payload_type=120, sequence_number=100, timestamp=1, ssrc=99)  # of the same peer
        for payload in (b"", b"\xff" * 40, b"\x40\0\0\x01\x40", b"\x08\0\0\xff", b"\x30\1\0\x7f"):
            template.payload = payload
            template.sequence_number += 1
            await transport._send_rtp(template.serialize())
        for start in (b"", b"REMB", b"REMB\xff\xff\xff\xff", b"S", b"S\xff\1\2", b"SGC?"):
            fci = start.ljust(4, b"\0")
            packet = RtcpPsfbPacket(fmt=15, ssrc=ssrc, media_ssrc=call.bob.pc.getSenders()[0]._ssrc, fci=fci)
            await transport._send_rtp(bytes(packet))
        back = call.bob.pc.getSenders()[0].transport
        for fci in (b"REMB\xff\xff\xff\xff", b"S\xff\1\2", b"S\1\x77", b"S\3\0xy"):
            await back._send_rtp(bytes(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=ssrc, fci=fci.ljust(8, b"\0"))))
        await call.send(20)
        await until(lambda: len(call.receiver.numbers) >= 24)
        assert call.bob.incoming is not None
        assert call.bob.incoming.counts.dropped["malformed packet"] >= 4
        assert call.alice.state == call.bob.state == "connected"


async def test_another_model_falls_back_and_says_so() -> None:
    plain: list[int] = []
    sender, receiver = FakeSender(), FakeReceiver()
    alice = Connection(OPTIONS, sender=sender, conventional=lambda picture: picture)
    other = replace(OPTIONS, model="fedcba9876543210")
    bob = Connection(
        other, receiver=receiver, on_plain=lambda picture, at_ns, captured_ns: plain.append(int(picture.mean()))
    )
    try:
        await connect(alice, bob)
        assert alice.codec == bob.codec == "VP8"
        assert "the peer has model fedcba9876543210" in (alice.failure or "")
        assert "the peer has model 0123456789abcdef" in (bob.failure or "")
        for position in range(30):
            alice.put(Captured(np.full((64, 64, 3), 200, np.uint8), time.monotonic_ns(), position))
            await asyncio.sleep(1 / 30)
        await until(lambda: len(plain) > 5)
        assert abs(plain[-1] - 200) < 12
        assert receiver.numbers == []
    finally:
        await asyncio.gather(alice.close(), bob.close())


async def test_without_fallback_a_foreign_model_is_an_error() -> None:
    strict = replace(OPTIONS, fallback=False)
    alice = Connection(replace(strict, model="fedcba9876543210"), sender=FakeSender())
    bob = Connection(strict, receiver=FakeReceiver())
    try:
        with pytest.raises(ModelMismatch, match="the peer has model fedcba9876543210, we have 0123456789abcdef"):
            await bob.answer(await alice.offer())
    finally:
        await asyncio.gather(alice.close(), bob.close())


async def test_a_private_sender_sends_nothing_by_a_conventional_codec() -> None:
    alice = Connection(replace(OPTIONS, model="fedcba9876543210"), sender=FakeSender())
    bob = Connection(OPTIONS, receiver=FakeReceiver())
    try:
        answer = await bob.answer(await alice.offer())
        with pytest.raises(CallError, match="background mode forbids"):
            await alice.accept(answer)
    finally:
        await asyncio.gather(alice.close(), bob.close())


@pytest.mark.parametrize("text", ["", "nonsense", "v=0\r\n", "v=0\r\nm=video x y\r\n", "x" * 40_000, "m=" + "\0" * 99])
async def test_what_is_no_description_is_refused(text: str) -> None:
    bob = Connection(replace(OPTIONS), receiver=FakeReceiver())
    try:
        with pytest.raises((SignallingError, CallError)):
            await bob.answer(text)
    finally:
        await bob.close()


async def test_no_path_is_said_in_time() -> None:
    alice, bob = Connection(OPTIONS, sender=FakeSender()), Connection(OPTIONS, receiver=FakeReceiver())
    try:
        answer = await bob.answer(await alice.offer())
        await bob.close()
        start = time.monotonic()
        await alice.accept(answer)
        with pytest.raises(PeerUnreachable, match="no network path"):
            await alice.connected(timeout=1.0)
        assert time.monotonic() - start < 2.5
    finally:
        await asyncio.gather(alice.close(), bob.close())


async def test_a_silent_peer_is_noticed_and_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[str] = []
    async with pair() as call:
        call.bob._on_state = states.append
        await call.send(10)
        wire = call.alice.wire
        monkeypatch.setattr(wire, "send", lambda size, deliver: None)
        start = time.monotonic()
        await until(lambda: "silent" in states, timeout=5)
        assert 2.0 < time.monotonic() - start < 4.0
        monkeypatch.undo()
        await call.send(10)
        assert states[-1] == "connected"


@pytest.mark.parametrize("calls", [8, pytest.param(50, marks=pytest.mark.slow)])
async def test_nothing_is_left_after_many_calls(calls: int) -> None:
    process = psutil.Process()
    await one_call()
    gc.collect()
    threads, files = set(threading.enumerate()), process.num_fds()
    for _ in range(calls):
        closing = await one_call()
        assert closing < 1.0
    await asyncio.sleep(0.1)
    gc.collect()
    assert set(threading.enumerate()) - threads == set()
    assert process.num_fds() <= files
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == []


async def one_call() -> float:
    """A short call; returns the seconds that closing took."""
    async with pair() as call:
        await call.send(3)
        start = time.monotonic()
    return time.monotonic() - start


async def test_closing_before_connecting_leaves_nothing() -> None:
    for negotiated in (False, True):
        alice, bob = Connection(OPTIONS, sender=FakeSender()), Connection(OPTIONS, receiver=FakeReceiver())
        if negotiated:
            await alice.accept(await bob.answer(await alice.offer()))
        await asyncio.gather(alice.close(), bob.close())
    await asyncio.sleep(0.2)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sgc-")]


async def test_on_wire_bytes_are_what_the_headers_make_them() -> None:
    async with pair(sender=FakeSender(size=60)) as call:
        await asyncio.sleep(0.3)
        assert call.alice.outgoing is not None
        counts, before = call.alice.outgoing.counts, call.alice.wire.bytes_sent
        await call.send(30)
        await until(lambda: len(call.receiver.numbers) == counts.sent)
        media = counts.sent * (60 + 3 + 12 + 10 + 28)  # message, SGC, RTP, SRTP, UDP and IP
        assert media <= call.alice.wire.bytes_sent - before < media + 600
        assert call.bob.wire.bytes_received >= media

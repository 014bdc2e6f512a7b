"""Sound between two real aiortc peers, by real Opus; only the picture codec and the wire are faked."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgc.errors import BitstreamError
from streamgc.rtc.connection import Connection, ConnectionOptions
from streamgc.rtc.hearing import BLOCK, IncomingSound
from streamgc.rtc.impairment import Impairment
from streamgc.rtc.lipsync import LipSync
from streamgc.rtc.opus import PACKET_MS, SAMPLE_RATE, OpusDecoder, OpusEncoder, Samples, packet_samples
from streamgc.rtc.pictures import Captured
from streamgc.rtc.sound import Sound
from tests.rtc_fakes import FakeReceiver, FakeSender
from tests.sound_fakes import bursts, voice

OPTIONS = ConnectionOptions(model="0123456789abcdef", kbps=8.0, sound=True)
CHUNK = SAMPLE_RATE // 50


def loudness(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64)))))


@pytest.mark.parametrize("packet_ms", PACKET_MS)
def test_opus_keeps_to_rate_and_length(packet_ms: int) -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    encoder.configure(8, 0.0)
    sound, count = voice(4), packet_ms * SAMPLE_RATE // 1000
    packets = [encoder.encode(sound[at : at + count]) for at in range(0, len(sound) - count + 1, count)]
    spoken = [packet for packet in packets if packet]
    assert sum(map(len, packets)) * 8 / 4000 < 9
    assert {packet_samples(packet) for packet in spoken} == {count}
    heard = np.concatenate([decoder.decode(packet) for packet in spoken])
    assert 0.5 < loudness(heard) / loudness(sound) < 2


def test_silence_is_not_sent_and_a_copy_in_the_next_packet_repairs_a_loss() -> None:
    encoder = OpusEncoder()
    encoder.configure(12, 0.0)
    quiet = [encoder.encode(np.zeros(2880, np.int16)) for _ in range(40)]
    assert sum(not packet for packet in quiet) > 25

    def error(loss: float) -> float:
        encoder, decoder = OpusEncoder(), OpusDecoder()
        encoder.configure(16, loss)
        sound = voice(2)
        packets = [encoder.encode(sound[at : at + 960]) for at in range(0, len(sound), 960)]
        whole = OpusDecoder()
        total = 0.0
        for number, packet in enumerate(packets):
            expected = whole.decode(packet) if packet else np.zeros(960, np.int16)
            if number % 10 == 5 and packet and packets[number + 1]:
                got = decoder.recover(packets[number + 1], 960)
                total += loudness((expected.astype(np.int32) - got).astype(np.int32))
            elif packet:
                decoder.decode(packet)
        return total

    assert error(0.3) < 0.75 * error(0.0)


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_raise_our_error(data: bytes) -> None:
    decoder = OpusDecoder()
    for work in (packet_samples, decoder.decode, lambda one: decoder.recover(one, 960)):
        try:
            work(data)
        except BitstreamError:
            continue


class _Rtp(NamedTuple):
    payload: bytes
    timestamp: int
    sequence_number: int


async def test_stamps_that_overlap_do_not_stop_the_sound() -> None:
    """Each packet begins 3 ms before the end of the one before: a sender whose clock of captures jitters."""
    heard: list[Samples] = []
    incoming = IncomingSound(lambda samples, at_ns: heard.append(samples), LipSync())
    encoder, spoken = OpusEncoder(), voice(2)
    for number in range(40):
        data = encoder.encode(spoken[number * 960 : (number + 1) * 960])
        incoming.take_packet(_Rtp(data, number * (960 - 144), number))
        await asyncio.sleep(0.017)
    assert len(heard) > 20
    assert sum(loudness(block) > 100 for block in heard) > 10
    await incoming.close()


async def test_hostile_packets_neither_raise_nor_pile_up() -> None:
    heard: list[Samples] = []
    incoming = IncomingSound(lambda samples, at_ns: heard.append(samples), LipSync())
    rng = np.random.default_rng(5)
    packet = OpusEncoder().encode(voice(1)[:960])
    for number in range(3000):
        payload = packet if number % 3 else rng.bytes(int(rng.integers(0, 80)))
        incoming.take_packet(_Rtp(payload, int(rng.integers(0, 1 << 32)), int(rng.integers(0, 1 << 16))))
        if number % 300 == 0:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert len(incoming._held) <= 64
    assert len(heard) > 5
    assert all(len(block) == BLOCK for block in heard)
    await incoming.close()


@dataclass
class Talk:
    """Alice shows and speaks, Bob sees and hears."""

    alice: Connection
    bob: Connection
    shown: list[tuple[int, int]] = field(default_factory=list)  # number, time
    sent_ns: dict[int, int] = field(default_factory=dict)
    heard: list[tuple[int, Samples]] = field(default_factory=list)

    async def send(self, sound: Samples, fps: float = 15.0) -> int:
        """Sends the sound with pictures beside it; returns when its first sample was captured."""
        start = time.monotonic_ns()
        picture_at = 0.0
        for place in range(0, len(sound) - CHUNK + 1, CHUNK):
            at = (place + CHUNK) / SAMPLE_RATE
            await asyncio.sleep(max(0.0, start / 1e9 + at - time.monotonic()))
            self.alice.put_sound(Sound(sound[place : place + CHUNK], start + place * 1_000_000_000 // SAMPLE_RATE))
            if at >= picture_at:
                picture_at += 1 / fps
                self.alice.put(Captured(np.full((16, 16, 3), place % 251, np.uint8), time.monotonic_ns(), place))
        return start


@asynccontextmanager
async def talk(impairment: Impairment | None = None, options: ConnectionOptions = OPTIONS) -> AsyncIterator[Talk]:
    made: list[Talk] = []
    backward = replace(impairment, seed=impairment.seed + 1000) if impairment else None
    alice = Connection(
        replace(options, impairment=impairment),
        sender=FakeSender(size=0),
        on_sent=lambda number, captured, encoded: made[0].sent_ns.update({number: captured.captured_ns}),
    )
    bob = Connection(
        replace(options, impairment=backward),
        receiver=FakeReceiver(),
        on_shown=lambda picture, at_ns: made[0].shown.append((picture.number, at_ns)),
        on_sound=lambda samples, at_ns: made[0].heard.append((at_ns, samples)),
    )
    made.append(Talk(alice, bob))
    try:
        await alice.accept(await bob.answer(await alice.offer()))
        await asyncio.gather(alice.connected(5), bob.connected(5))
        yield made[0]
    finally:
        await asyncio.gather(alice.close(), bob.close())


def onsets(heard: list[tuple[int, Samples]]) -> list[int]:
    """When bursts begin to be heard, ns."""
    found, quiet = [], 0
    for at_ns, block in heard:
        for part in range(0, BLOCK, 120):
            if loudness(block[part : part + 120]) < 1500:
                quiet += 1
                continue
            if quiet > 60:  # 150 ms
                found.append(at_ns + part * 1_000_000_000 // SAMPLE_RATE)
            quiet = 0
    return found


@pytest.mark.parametrize("wire_kbps", [0.0, 20.0])
async def test_sound_is_heard_beside_its_picture(wire_kbps: float) -> None:
    options = replace(OPTIONS, wire_kbps=wire_kbps)
    async with talk(Impairment(delay_ms=40, jitter_ms=5, seed=2), options) as call:
        start = await call.send(bursts(6))
        await asyncio.sleep(0.3)
        bob, heard = call.bob, call.bob.heard_sound
        assert heard is not None
        delays = [(at - start - round((at - start) / 5e8 - 0.3) * 500_000_000) / 1e6 for at in onsets(call.heard)]
        late = [at for at in delays[len(delays) // 2 :] if at > 0]  # after the first reports
        pictures = [(at - call.sent_ns[number]) / 1e6 for number, at in call.shown if number in call.sent_ns]
        skew = float(np.median(late) - np.median(pictures[-30:]))
        assert len(onsets(call.heard)) >= 9
        assert abs(skew) <= 80
        assert bob.sync.skew_ms is not None
        assert abs(bob.sync.skew_ms - skew) < 40
        if wire_kbps:
            assert call.alice.rate.sound.packet_ms == 120


async def test_speech_and_picture_fit_in_twenty_kilobits_on_the_wire() -> None:
    async with talk(Impairment(delay_ms=40, seed=2), replace(OPTIONS, wire_kbps=20.0)) as call:
        await call.send(voice(2))
        before, start = call.alice.wire.bytes_sent, time.monotonic()
        back = call.bob.wire.bytes_sent
        shown = len(call.shown)
        await call.send(voice(8))
        seconds = time.monotonic() - start
        assert (call.alice.wire.bytes_sent - before) * 8 / seconds / 1000 <= 20
        assert (call.bob.wire.bytes_sent - back) * 8 / seconds / 1000 <= 5
        times = [at for _, at in call.shown[shown:]]
        busiest = max(sum(first <= at < first + 3e9 for at in times) for first in times)
        assert busiest >= 15  # a pause of a busy machine looks like congestion, so not in every second
        loud = [loudness(block) for _, block in call.heard[100:]]
        assert sum(one > 500 for one in loud) > 0.3 * len(loud)


async def test_mute_sends_nothing_and_sound_goes_on_after_it() -> None:
    async with talk() as call:
        assert call.alice.sound is not None
        await call.send(voice(1))
        call.alice.mute(True)
        packets = call.alice.sound.counts.packets
        assert packets > 3
        await call.send(voice(0.5))
        assert call.alice.sound.counts.packets == packets
        assert not call.alice.rate.sounding
        call.alice.mute(False)
        await call.send(voice(1))
        assert call.alice.sound.counts.packets > packets


async def test_loss_is_concealed_and_nothing_is_left_behind() -> None:
    async with talk(Impairment(loss=0.1, delay_ms=20, seed=6)) as call:
        await call.send(voice(4))
        heard = call.bob.heard_sound
        assert heard is not None
        assert heard.counts.recovered + heard.counts.concealed_ms / 20 > 0
        assert heard.counts.malformed == 0
        blocks = [samples for _, samples in call.heard]
        assert abs(len(blocks) - 4 * 50) < 25  # without a gap, whatever was lost
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert "sound" not in names


async def test_a_peer_without_sound_gets_a_call_without_sound() -> None:
    for first, second in ((OPTIONS, replace(OPTIONS, sound=False)), (replace(OPTIONS, sound=False), OPTIONS)):
        alice = Connection(first, sender=FakeSender())
        bob = Connection(second, receiver=FakeReceiver())
        await alice.accept(await bob.answer(await alice.offer()))
        await asyncio.gather(alice.connected(5), bob.connected(5))
        alice.put_sound(Sound(voice(0.2), time.monotonic_ns()))
        alice.put(Captured(np.zeros((16, 16, 3), np.uint8), time.monotonic_ns(), 0))
        await asyncio.sleep(0.3)
        assert bob.incoming is not None
        assert bob.incoming.counts.packets >= 1
        assert bob.heard_sound is None or not bob.heard_sound.counts.packets
        await asyncio.gather(alice.close(), bob.close())

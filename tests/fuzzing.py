"""Malformed input for everything that parses what a peer sends: `python -m tests.fuzzing --messages 1000000`.

Valid inputs are recorded from real senders, then bent: bits flipped, cut, spliced, repeated, replaced by noise.
Whatever comes, a parser returns or raises one of our errors, soon, and keeps no memory. The same seed gives the same
inputs.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil
from aiortc.sdp import SessionDescription

from streamgc.call import messages
from streamgc.errors import StreamGCError
from streamgc.rtc.description import Parameters, has_sound, has_video, read_parameters, write_parameters
from streamgc.rtc.feedback import Report, pack_application_feedback, pack_block, parse_application_feedback, parse_block
from streamgc.rtc.opus import OpusDecoder, OpusEncoder, packet_samples
from streamgc.rtc.payload import packetise, parse_packet
from streamgc.rtc.reassembly import Reassembler
from tests.pipeline_fakes import moving, receiver, sender
from tests.sound_fakes import voice

FRESH_AFTER = 400
"""Inputs after which a target with a memory begins anew, so that deep states are reached again and again."""


class Target(NamedTuple):
    """Something that takes bytes from the network."""

    name: str
    weight: int  # how often, beside the others
    corpus: Sequence[bytes]  # valid inputs, in the order in which they were sent
    begin: Callable[[], Callable[[bytes], None]]  # a fresh one


@dataclass
class Outcome:
    """What a run found."""

    inputs: int = 0
    refused: int = 0  # one of our errors
    slowest_s: float = 0.0
    slowest: str = ""
    grown_mb: float = 0.0


def frame_messages() -> list[bytes]:
    """A minute's beginning as a sender codes it."""
    coder = sender()
    return [coder.encode(picture, number).message for number, picture in enumerate(moving(40))]


def _receiver(corpus: Sequence[bytes]) -> Callable[[bytes], None]:
    taking = receiver()
    for message in corpus[:12]:  # beyond the first key
        taking.receive(message)

    def take(data: bytes) -> None:
        taking.receive(data)

    return take


def _packets(corpus: Sequence[bytes]) -> Callable[[bytes], None]:
    reassembler, sequence = Reassembler(), itertools.count()

    def take(data: bytes) -> None:
        number = next(sequence)
        if number % 7 == 0:
            number = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
        reassembler.push(parse_packet(data), number & 0xFFFF, time.monotonic_ns())

    return take


def _feedback() -> Callable[[bytes], None]:
    coder = sender()

    def take(data: bytes) -> None:
        block = parse_application_feedback(data)
        coder.feedback(parse_block(block if block is not None else data).codec)

    return take


def _sound() -> Callable[[bytes], None]:
    decoder = OpusDecoder()

    def take(data: bytes) -> None:
        packet_samples(data)
        decoder.decode(data)
        decoder.recover(data, 960)

    return take


def _description(data: bytes) -> None:
    text = data.decode("utf8", "replace")
    read_parameters(text)
    if has_video(text) or has_sound(text):
        try:
            SessionDescription.parse(text)
        except Exception as error:  # as the connection does: aiortc's parser raises whatever it stumbles over
            raise StreamGCError("not a session description") from error


def _signalling(data: bytes) -> None:
    for parse in (messages.parse_from_client, messages.parse_from_server):
        try:
            parse(data)
        except StreamGCError:
            continue


def targets() -> list[Target]:
    """All parsers, with what they are fed."""
    frames = frame_messages()
    packets = [packet for number, frame in enumerate(frames) for packet in packetise(number, frame, 9, (frame[:40],))]
    packets += packetise(41, bytes(range(256)) * 20)
    coder, taking = sender(), receiver()
    received = [taking.receive(coder.encode(picture, number).message) for number, picture in enumerate(moving(12))]
    blocks = [pack_block(Report(0.1, 20, 14.0, one.number & 0xFF, 9), one.feedback) for one in received]
    encoder, speech = OpusEncoder(), voice(1)
    sounds = [encoder.encode(speech[at : at + 960]) or b"\x00" for at in range(0, len(speech), 960)]
    text = write_parameters(_OFFER, Parameters(0, "0123456789abcdef"))
    said = [
        messages.encode(one)
        for one in (
            messages.Join("r" * 22), messages.Leave(), messages.Joined(True, "p"), messages.PeerLeft(False),
            messages.Describe("offer", text), messages.Refused(messages.Refusal.ROOM_FULL, "full"),
        )
    ]  # fmt: skip
    return [
        Target("frame messages", 6, frames, lambda: _receiver(frames)),
        Target("packets", 4, packets, lambda: _packets(packets)),
        Target("feedback", 2, [*blocks, *map(pack_application_feedback, blocks)], _feedback),
        Target("sound", 2, sounds, _sound),
        Target("session descriptions", 1, [text.encode()], lambda: _description),
        Target("signalling", 2, said, lambda: _signalling),
    ]


def bend(corpus: Sequence[bytes], chance: random.Random) -> bytes:
    """An input that is nearly valid, or not at all."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(8):
            case 0 | 1 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 2 if data:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 3:
                del data[at:]
            case 4:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 5:
                data[at:] = chance.choice(corpus)[at:]
            case 6:
                data += data[at : at + 64]
            case 7 if chance.random() < 0.2:
                data = bytearray(chance.randbytes(chance.randrange(300)))
    return bytes(data)


def run(count: int, seed: int = 1, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Feed `count` inputs; raises what is not one of our errors, with the input that caused it."""
    chance, outcome, all_targets = random.Random(seed), Outcome(), targets()
    drawn = [target for target in all_targets for _ in range(target.weight)]
    active = {target.name: target.begin() for target in all_targets}
    process, base = psutil.Process(), 0
    for number in range(count):
        target = chance.choice(drawn)
        if chance.randrange(FRESH_AFTER) == 0:
            active[target.name] = target.begin()
        data = bend(target.corpus, chance) if chance.random() < 0.9 else chance.choice(target.corpus)
        start = time.perf_counter()
        try:
            active[target.name](data)
        except StreamGCError:
            outcome.refused += 1
        except Exception as error:
            raise AssertionError(f"{target.name}: {type(error).__name__}: {error}: {data.hex()}") from error
        taken = time.perf_counter() - start
        if taken > outcome.slowest_s:
            outcome.slowest_s, outcome.slowest = taken, f"{target.name}: {data.hex()}"
        outcome.inputs += 1
        if number == count // 10:
            base = process.memory_info().rss
        if number % 20_000 == 19_999:
            say(f"{number + 1}: {outcome.refused} refused, slowest {outcome.slowest_s * 1000:.1f} ms")
    outcome.grown_mb = (process.memory_info().rss - base) / 1e6
    return outcome


_OFFER = """v=0\r
o=- 3904 3904 IN IP4 0.0.0.0\r
s=-\r
t=0 0\r
a=group:BUNDLE 0 1\r
m=video 40123 UDP/TLS/RTP/SAVPF 120 97\r
c=IN IP4 192.0.2.7\r
a=sendrecv\r
a=mid:0\r
a=rtcp-mux\r
a=ssrc:42 cname:x\r
a=rtpmap:120 SGC/90000\r
a=rtcp-fb:120 nack pli\r
a=rtpmap:97 VP8/90000\r
a=candidate:1 1 udp 2130706431 192.0.2.7 40123 typ host\r
a=ice-ufrag:abcd\r
a=ice-pwd:0123456789012345678901\r
a=fingerprint:sha-256 00:11:22\r
a=setup:actpass\r
m=audio 40123 UDP/TLS/RTP/SAVPF 96\r
c=IN IP4 192.0.2.7\r
a=mid:1\r
a=rtpmap:96 opus/48000/2\r
"""


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--messages", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    print(run(chosen.messages, chosen.seed, print))

"""The receiving side of the video stream, fed packet by packet."""

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from streamgc.profiling.spans import Spans
from streamgc.rtc.hook import CLOCK_RATE
from streamgc.rtc.incoming import IncomingVideo
from streamgc.rtc.lipsync import LipSync
from streamgc.rtc.payload import packetise
from tests.rtc_fakes import FakeReceiver, FakeSender

GREY = np.full((16, 16, 3), 90, np.uint8)


@pytest.mark.parametrize("asked_for", [True, False])
async def test_a_packet_that_was_asked_for_again_is_no_queue(asked_for: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth packet comes 100 ms later. Where it was asked for, that is a round trip; else it is the path."""
    shown: list[int] = []
    clock = time.monotonic_ns()
    monkeypatch.setattr("streamgc.rtc.incoming.time", SimpleNamespace(monotonic_ns=lambda: clock))
    started = clock
    incoming = IncomingVideo(
        FakeReceiver(),
        Spans(),
        on_shown=lambda picture, at_ns: shown.append(picture.number),
        on_feedback=lambda data: None,
        on_report=lambda: None,
        request_intra=lambda: None,
        sync=LipSync(),
    )
    sender = FakeSender()
    waiting: list[tuple[int, SimpleNamespace]] = []
    for number in range(120):
        sent = started + number * 66_666_667
        message = sender.encode(GREY, number, sent).message
        stamp = round((sent - started) * CLOCK_RATE / 1e9)
        packet = SimpleNamespace(sequence_number=number, timestamp=stamp, ssrc=7, payload=packetise(number, message)[0])
        late = number % 4 == 3
        waiting.append((sent + (130_000_000 if late else 30_000_000), packet))
        waiting.sort(key=lambda item: item[0])
        while waiting and waiting[0][0] <= sent + 66_666_667:
            clock, due = waiting.pop(0)
            incoming.nack.note(due.sequence_number, clock if asked_for else started)
            if not asked_for:
                incoming.nack.repaired = False
            incoming.take_packet(due)
        await asyncio.sleep(0)
    queue_ms, loss = incoming.delay.queue_ms, incoming.loss.loss(clock)
    await incoming.close()
    assert shown
    if asked_for:
        assert queue_ms == 0
        assert 0.15 < loss < 0.3, "and was lost"
    else:
        assert queue_ms > 15
        assert loss < 0.1

"""The sending half by itself: copies of a message do not wait for the codec, and nothing is left of it at the end."""

import asyncio
import threading
import time
from collections import Counter

import numpy as np

from streamgc.errors import SceneError
from streamgc.profiling.spans import Spans
from streamgc.rtc.feedback import Report
from streamgc.rtc.outgoing import OutgoingVideo
from streamgc.rtc.payload import parse_packet
from streamgc.rtc.pictures import Captured, Picture
from streamgc.rtc.rate import RateControl
from streamgc.rtc.repair import COPIES_MAX
from tests.rtc_fakes import FakeSender

PICTURE = np.zeros((16, 16, 3), np.uint8)


def lossy_rate() -> RateControl:
    rate = RateControl(8, 15, clock=lambda: 100.0)
    for _ in range(60):
        rate.spent(80)
        rate.report(Report(0.3, 0, 60.0, 0, 0, 1.4))
    assert rate.echoes == COPIES_MAX - 1
    return rate


async def test_echoes_go_out_while_the_codec_is_at_work() -> None:
    video = OutgoingVideo(FakeSender(encode_s=0.05), lossy_rate(), Spans(), lambda now: b"")
    sent: list[tuple[float, int, tuple[bytes, ...]]] = []

    async def pull() -> None:
        while True:
            outgoing = await video.recv()
            for payload in outgoing.payloads:
                packet = parse_packet(payload)
                sent.append((time.monotonic(), packet.number, packet.repeats))

    pulling = asyncio.create_task(pull())
    for number in range(15):
        video.put(Captured(PICTURE, time.monotonic_ns(), number))
        await asyncio.sleep(1 / 15)
    pulling.cancel()
    await video.close()
    copies = Counter(number for _, number, _ in sent)
    assert [copies[number] for number in range(10)].count(COPIES_MAX) >= 7
    assert max(copies.values()) == COPIES_MAX
    first = {number: at for at, number, _ in reversed(sent)}
    assert all(at - first[number] < 0.066 for at, number, _ in sent)  # a newer message ends the echoes
    assert any(repeats for at, number, repeats in sent if at == first[number])
    assert not any(repeats for at, number, repeats in sent if at != first[number])
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task is not pulling]


async def test_a_picture_that_cannot_be_made_for_vp8_costs_itself_alone() -> None:
    video = OutgoingVideo(FakeSender(), RateControl(8, 15), Spans(), lambda now: b"")
    here = threading.get_ident()
    seen: list[int] = []

    def convert(picture: Picture) -> Picture:
        seen.append(threading.get_ident())
        if len(seen) == 1:
            raise SceneError("the segmenter's output is unusable")
        return picture

    video.conventional = convert
    pulling = asyncio.create_task(video.recv())
    for number in range(3):
        video.put(Captured(PICTURE, time.monotonic_ns(), number))
        await asyncio.sleep(1 / 15)
    frame = await asyncio.wait_for(pulling, 2)
    assert (frame.width, frame.height) == (16, 16)
    assert video.counts.dropped["failed to encode"] == 1
    assert here not in seen  # a segmenter must not hold up sound
    await video.close()


async def test_closing_while_the_codec_is_at_work_leaves_no_task() -> None:
    video = OutgoingVideo(FakeSender(encode_s=0.3), lossy_rate(), Spans(), lambda now: b"")
    pulling = asyncio.create_task(video.recv())
    video.put(Captured(PICTURE, time.monotonic_ns(), 0))
    await asyncio.sleep(0.05)
    pulling.cancel()
    start = time.monotonic()
    await video.close()
    assert time.monotonic() - start < 1
    await asyncio.gather(pulling, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}

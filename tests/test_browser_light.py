"""Glass to glass by light, as far as a browser's pixels: a flashing picture is sent to the page, and its video element
is read back by a canvas. Nothing in the page knows of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgc.call.agent import Agent, serving
from streamgc.call.codec import CodecOptions
from streamgc.call.run import CallOptions
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.session import Hooks, Session, SessionOptions
from streamgc.profiling.luminance import Level, Step, find_steps, level_at
from streamgc.rtc.connection import ConnectionOptions
from streamgc.rtc.pictures import Captured, Encoded, Picture
from tests.browser import browser, chromium
from tests.rtc_fakes import FakeCodec

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FPS = 10.0
SECONDS = 8
SHAPE = (64, 64)
_READ_BACK = """
const video = document.getElementById("remote"), canvas = document.createElement("canvas");
canvas.width = canvas.height = 8;
const pen = canvas.getContext("2d", { willReadFrequently: true });
window.light = [];
const look = () => {
  pen.drawImage(video, 0, 0, 8, 8);
  const data = pen.getImageData(0, 0, 8, 8).data;
  let sum = 0;
  for (let at = 0; at < data.length; at += 4) sum += data[at];
  window.light.push([performance.timeOrigin + performance.now(), sum / 64]);
  video.requestVideoFrameCallback(look);
};
video.requestVideoFrameCallback(look);
"""


class Book:
    """What the two ends of the call know of each frame: when it was captured, and when it was displayed."""

    def __init__(self, agent: Agent) -> None:
        self.captured: dict[int, int] = {}
        self.shown: dict[int, int] = {}
        self.steps: list[Step] = []
        self._show = agent.call._on_shown
        agent.call._on_shown = self._on_shown  # type: ignore[method-assign]

    def on_sent(self, number: int, captured: Captured, encoded: Encoded) -> None:
        self.captured[number] = captured.captured_ns

    def _on_shown(self, picture: Picture, number: int | None, at_ns: int) -> None:
        if number is not None:
            self.shown[number] = at_ns
        self._show(picture, number, at_ns)

    async def flashing(self) -> AsyncIterator[Captured]:
        """Flat pictures whose brightness changes once a second."""
        start, last = time.monotonic_ns(), 0
        for position in range(round(SECONDS * FPS)):
            await asyncio.sleep(max(0.0, (start - time.monotonic_ns()) / 1e9 + position / FPS))
            now = time.monotonic_ns()
            level = level_at(now, start)
            if level != last and last:
                self.steps.append(Step(now, level))
            last = level
            yield Captured(np.full((*SHAPE, 3), level, np.uint8), now, position)

    def identity_ms(self) -> dict[int, float]:
        """Glass to glass by the time of hand-over."""
        both = self.captured.keys() & self.shown.keys()
        return {self.captured[number]: (self.shown[number] - self.captured[number]) / 1e6 for number in both}


@pytest.mark.timeout(240)
async def test_light_reaches_the_page_when_its_frames_do(tmp_path: Path) -> None:
    chromium()
    options = CodecOptions(SHAPE[1], SHAPE[0], FPS)
    async with (
        local_server(SignalingOptions(port=0)) as server,
        serving(CallOptions(server=server, codec=options), FakeCodec(shape=SHAPE)) as (url, agent),
    ):
        book = Book(agent)
        with browser(tmp_path, None) as driver:
            await asyncio.to_thread(driver.get, url)
            await until(lambda: driver.execute_script("return document.body.dataset.phase") == "idle")
            await agent.call.create()
            await send(server, agent.call.situation.room, book, driver)
            light: list[tuple[float, float]] = await asyncio.to_thread(driver.execute_script, "return window.light")
    to_monotonic = time.time_ns() - time.monotonic_ns()
    levels = [Level(round(at_ms * 1e6) - to_monotonic, level) for at_ms, level in light]
    found = find_steps(book.steps, levels, book.identity_ms(), 1e9 / FPS)
    assert found.found >= len(book.steps) - 2 >= 4
    assert found.within_interval >= 0.6
    # the difference is VP8 to the tab, and the tab's own drawing
    print(f"by light {found.light_ms:.0f} ms, by identity {found.identity_ms:.0f} ms")
    assert found.light_ms >= found.identity_ms


async def send(server: str, room: str, book: Book, driver: Any) -> None:
    """The far side: flashes for a while from when the page is ready to be read."""
    connection = ConnectionOptions(FakeCodec(shape=SHAPE).model_hash, fps=FPS)
    session = Session(SessionOptions(server, room, connection), FakeCodec(shape=SHAPE), Hooks(sent=book.on_sent))
    running = asyncio.create_task(session.run())
    await asyncio.wait_for(session.connected.wait(), 30)
    await asyncio.to_thread(driver.execute_script, _READ_BACK)
    await session.send_all(book.flashing())
    await running


async def until(check: Any, seconds: float = 60.0) -> None:
    """Wait until the driver says so; the agent lives on this event loop, so it is asked from a thread."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(check):
        assert time.monotonic() < end
        await asyncio.sleep(0.2)

"""The page in a real browser: two windows, two agents, one call over SGC with the shipped model.

All of them: `pytest -k browser -m ""`; without -m the call itself is left out, which takes minutes.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgc.call.agent import Agent, serving
from streamgc.call.codec import Codec, CodecOptions, load_codec
from streamgc.call.run import CallOptions
from streamgc.call.serve import SignalingOptions, local_server
from tests.browser import browser, chromium, likeness, make_camera, pixels, screenshot
from tests.rtc_fakes import FakeCodec

pytestmark = pytest.mark.browser
OPTIONS = CodecOptions(fps=6.0, threads=1, framing=False)


async def until(driver: Any, check: Callable[[Any], Any], what: str, seconds: float = 90.0) -> Any:
    """Wait until `check(driver)` is true; the agents live on this event loop, so the driver is asked from a thread."""
    end = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(check, driver)):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.2)
    return value


async def do(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


def phase(driver: Any) -> str:
    return str(driver.execute_script("return document.body.dataset.phase"))


def click(driver: Any, selector: str) -> None:
    driver.find_element("css selector", selector).click()


def text(driver: Any, identifier: str) -> str:
    return str(driver.find_element("id", identifier).text)


class Window:
    """One window of the browser; every use switches to it first."""

    def __init__(self, driver: Any, handle: str) -> None:
        self._driver, self._handle = driver, handle

    @property
    def driver(self) -> Any:
        self._driver.switch_to.window(self._handle)
        return self._driver

    async def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(lambda: function(self.driver, *arguments))

    async def until(self, check: Callable[[Any], Any], what: str, seconds: float = 90.0) -> Any:
        return await until(self, lambda window: check(window.driver), what, seconds)

    async def shot(self, name: str) -> None:
        await self.do(screenshot, name)


@asynccontextmanager
async def two_agents(codecs: tuple[Codec, Codec], options: CodecOptions) -> AsyncIterator[list[tuple[str, Agent]]]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(local_server(SignalingOptions(port=0)))
        call = CallOptions(server=server, codec=options)
        yield [await stack.enter_async_context(serving(call, codec)) for codec in codecs]


async def open_windows(driver: Any, urls: list[str]) -> list[Window]:
    windows = []
    for place, url in enumerate(urls):
        if place:
            await do(driver.switch_to.new_window, "window")
        await do(driver.get, url)
        windows.append(Window(driver, driver.current_window_handle))
    return windows


async def connect(alice: Window, bob: Window) -> None:
    """Alice makes a room, Bob joins by the link."""
    await alice.until(lambda d: phase(d) == "idle" and d.find_element("id", "create").is_displayed(), "the lobby")
    await bob.until(lambda d: phase(d) == "idle" and pixels(d, "local") is not None, "Bob's camera")
    await alice.do(click, "#create")
    await alice.until(lambda d: phase(d) == "waiting", "a room")
    await alice.shot("waiting")
    link = await alice.do(lambda d: d.find_element("id", "link").get_property("value"))
    await bob.do(lambda d: d.find_element("id", "room").send_keys(link))
    await bob.do(click, "#join button")
    for window in (alice, bob):
        await window.until(lambda d: phase(d) == "connected", "the call")


async def changes(window: Window, video: str, wanted: int, seconds: float = 60.0) -> None:
    """As `changes_of`, in a window."""
    await changes_of(window, video, wanted, seconds)


async def changes_of(driver: Any, video: str, wanted: int, seconds: float = 60.0) -> None:
    """Wait until a video element has shown so many different pictures; how fast depends on the machine."""
    seen: set[bytes] = set()

    def enough(driver: Any) -> bool:
        picture = pixels(driver.driver if isinstance(driver, Window) else driver, video)
        if picture is not None:
            seen.add(picture.tobytes())
        return len(seen) >= wanted

    await until(driver, enough, f"{wanted} different pictures in {video}", seconds)


def checked(driver: Any, selector: str) -> bool:
    return bool(driver.find_element("css selector", selector).get_attribute("aria-checked") == "true")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_two_windows_call_each_other(tmp_path: Path) -> None:
    chromium()
    codec = await do(load_codec, OPTIONS)
    camera = await do(make_camera, tmp_path / "camera.y4m")
    async with two_agents((codec, codec), OPTIONS) as agents:
        with browser(tmp_path, camera) as driver:
            alice, bob = await open_windows(driver, [url for url, _ in agents])
            await alice.shot("lobby")
            await connect(alice, bob)
            await bob.until(lambda d: pixels(d, "remote") is not None, "Alice's picture")
            await changes(bob, "remote", 8)
            await check_likeness(alice, bob)
            await bob.until(lambda d: text(d, "kbps") not in ("", "–", "0.0"), "figures")
            await bob.until(lambda d: text(d, "vp8") not in ("", "–"), "VP8's figure")
            await check_code(alice, bob)
            await bob.shot("call")
            await check_looks(bob)
            await check_own_views(alice)
            await check_click_on_a_person(alice, agents[0][1])
            await check_mark(bob, agents[1][1])
            await check_background(alice, agents[0][1])
            await check_camera_off(alice, bob)
            await check_mute(alice, bob, agents[0][1])
            await check_reload(alice, bob)
            await alice.do(click, "#hangup")
            await bob.until(lambda d: phase(d) == "left", "that Alice has left")
            await bob.shot("left")
            await alice.until(lambda d: phase(d) == "ended", "that Alice has left herself")


async def check_likeness(alice: Window, bob: Window) -> None:
    """Bob sees what Alice's camera has seen, as far as 16 × 16 pixels of brightness tell."""
    seen = [await alice.do(pixels, "local")]

    def alike(driver: Any) -> bool:
        shown = pixels(driver, "remote")
        return shown is not None and max(likeness(shown, one) for one in seen if one is not None) > 0.6

    for _ in range(8):
        seen.append(await alice.do(pixels, "local"))
    await bob.until(alike, "a picture like Alice's")


async def check_own_views(alice: Window) -> None:
    """Alice looks at what is kept of her and at what Bob sees."""
    for view in ("kept", "theirs"):
        await alice.do(click, f"[data-view={view}]")
        await alice.until(lambda d: checked(d, f"[data-view={view}]"), view)  # noqa: B023
        await alice.until(lambda d: pixels(d, "own") is not None, "the second picture")
        await changes(alice, "own", 4)
        await alice.shot(f"view-{view}")


async def check_code(alice: Window, bob: Window) -> None:
    """Both read the same letters."""
    codes = [await one.do(text, "code-letters") for one in (alice, bob)]
    assert codes[0] == codes[1]
    assert re.fullmatch(r"Code [a-z0-9]{3}-[a-z0-9]{3}", codes[0])
    await bob.do(click, "#code summary")
    await bob.shot("code")
    await bob.do(click, "#code summary")


async def check_looks(bob: Window) -> None:
    """Pictures for whoever looks at the page: phone and desktop, dark and light, nothing wider than the screen."""
    for name, width, scheme in (("phone", 400, LIGHT), ("phone-dark", 400, DARK), ("dark", 1280, DARK)):
        await bob.do(lambda d, w=width: d.set_window_size(w, 900))
        await bob.do(lambda d, s=scheme: d.execute_cdp_cmd("Emulation.setEmulatedMedia", s))
        await asyncio.sleep(0.5)
        await bob.shot(f"call-{name}")
        assert await bob.do(lambda d: d.execute_script(_FITS))
        await bob.do(lambda d: d.execute_script("scrollTo(0, document.body.scrollHeight)"))
        await bob.shot(f"call-{name}-below")
        await bob.do(lambda d: d.execute_script("scrollTo(0, 0)"))
    await bob.do(lambda d: d.execute_cdp_cmd("Emulation.setEmulatedMedia", LIGHT))


async def check_click_on_a_person(alice: Window, agent: Agent) -> None:
    """A click on somebody in the picture of what is kept sends only that one; a click beside sends everyone."""
    await alice.do(click, "[data-view=kept]")
    await alice.until(lambda d: checked(d, "[data-view=kept]"), "the kept view")
    await changes(alice, "own", 2)
    await alice.do(click, "#own-frame")  # its middle, where the man is
    await alice.until(lambda d: checked(d, "[data-policy=id]"), "one person by a click")
    assert re.fullmatch(r"id:\d+", agent.call.settings.preserve)
    await alice.shot("picked")
    await changes(alice, "own", 2)
    await alice.do(click, "[data-policy=all]")
    await alice.until(lambda d: checked(d, "[data-policy=all]"), "everyone again")
    await alice.do(click, "[data-view=theirs]")


async def check_mark(bob: Window, agent: Agent) -> None:
    """Stripes over what is made up."""
    await bob.do(click, "#mark")
    await bob.until(lambda d: agent.call.settings.mark, "the mark")
    await changes(bob, "remote", 3)
    await bob.shot("mark")
    await bob.do(click, "#mark")


async def check_background(alice: Window, agent: Agent) -> None:
    await alice.do(click, "[data-mode=private]")
    await alice.until(lambda d: checked(d, "[data-mode=private]"), "another background")
    assert agent.call.settings.background == "private"
    await changes(alice, "own", 4)
    await alice.shot("private")
    await alice.do(keys, "\ue015")  # arrow down, in a group of choices
    await alice.until(lambda d: checked(d, "[data-mode=replace]"), "a background by the keyboard")


def keys(driver: Any, text: str) -> None:
    driver.switch_to.active_element.send_keys(text)


async def check_camera_off(alice: Window, bob: Window) -> None:
    """With the camera off Bob soon sees nothing of Alice, and he does again when it is on."""
    before = (await bob.do(pixels, "remote")).astype(int)
    await alice.do(click, "#camera")
    await alice.until(lambda d: text(d, "camera") == "Camera off", "camera off")
    await bob.until(lambda d: np.abs(pixels(d, "remote") - before).mean() > 12, "that Alice is gone")
    await alice.shot("camera-off")
    await alice.do(lambda d: d.find_element("tag name", "body").send_keys("c"))
    await alice.until(lambda d: text(d, "camera") == "Camera on", "camera on")
    await changes(bob, "remote", 6)


_LISTEN = """
const sound = document.getElementById("sound"), context = new AudioContext();
const analyser = context.createAnalyser();
context.createMediaStreamSource(sound.srcObject).connect(analyser);
window.loudness = () => {
  const values = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(values);
  return Math.max(...values.map(Math.abs));
};
window.loudest = 0;
setInterval(() => (window.loudest = Math.max(window.loudest, window.loudness())), 20);
return context.resume().then(() => true);
"""


async def check_mute(alice: Window, bob: Window, agent: Agent) -> None:
    """Bob hears Alice's microphone, which beeps every second, and hears nothing while she is muted."""
    await bob.do(lambda d: d.execute_script(_LISTEN))
    await bob.until(lambda d: d.execute_script("return window.loudest") > 0.02, "Alice's microphone")
    await alice.do(click, "#microphone")
    await alice.until(lambda d: text(d, "microphone") == "Muted", "that she is muted")
    assert not agent.call.settings.microphone
    await asyncio.sleep(2)  # what is on its way
    await bob.do(lambda d: d.execute_script("window.loudest = 0"))
    await asyncio.sleep(4)
    assert await bob.do(lambda d: d.execute_script("return window.loudest")) < 0.005
    await alice.shot("muted")
    await alice.do(click, "#microphone")
    await bob.until(lambda d: d.execute_script("return window.loudest") > 0.02, "Alice's microphone again")


async def check_reload(alice: Window, bob: Window) -> None:
    """The call belongs to the agent: a reloaded page finds it again."""
    await bob.do(lambda d: d.refresh())
    await bob.until(lambda d: phase(d) == "connected", "the call after a reload")
    await bob.until(lambda d: pixels(d, "remote") is not None, "pictures after a reload")
    await changes(bob, "remote", 4)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("allowed", "title"), [(True, "No camera found"), (False, "The camera is not allowed")])
async def test_without_a_camera_the_page_says_so_and_still_joins(tmp_path: Path, allowed: bool, title: str) -> None:
    chromium()
    async with two_agents((FakeCodec(shape=(64, 64)),) * 2, OPTIONS) as agents:
        camera = None if allowed else await do(make_camera, tmp_path / "camera.y4m", 2)
        with browser(tmp_path, camera, allowed) as driver:
            (alice,) = await open_windows(driver, [agents[0][0]])
            await alice.until(lambda d: text(d, "cover-title") == title, title)
            await alice.shot("no-camera" if allowed else "denied")
            await alice.do(click, "#create")
            await alice.until(lambda d: phase(d) == "waiting", "a room without a camera")


@pytest.mark.timeout(300)
async def test_what_the_page_says_when_things_go_wrong(tmp_path: Path) -> None:
    chromium()
    codec = FakeCodec(shape=(64, 64))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(local_server(SignalingOptions(port=0)))
        agents = AsyncExitStack()
        url, _ = await agents.enter_async_context(serving(CallOptions(server=server, codec=OPTIONS), codec))
        with browser(tmp_path, await do(make_camera, tmp_path / "camera.y4m", 20)) as driver:
            (alice,) = await open_windows(driver, [url])
            await alice.until(lambda d: pixels(d, "local") is not None, "the camera")
            for place, (room, title) in enumerate(
                (("A" * 22, "No such room"), ("127.0.0.1:9/" + "A" * 22, "No meeting server"))
            ):
                await alice.do(lambda d: d.find_element("id", "room").clear())
                await alice.do(type_room, room)
                await alice.do(click, "#join button")
                await alice.until(partial(cover_says, title), title)
                await alice.shot(f"failed-{place}")
            await alice.do(lambda d: d.set_window_size(400, 860))
            await alice.shot("phone")
            await do(driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", DARK)
            await alice.shot("phone-dark")
            await agents.aclose()
            await alice.until(partial(cover_says, "StreamGC has stopped"), "that the agent is gone")


_FITS = "return document.documentElement.scrollWidth <= innerWidth"
LIGHT = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


def type_room(driver: Any, room: str) -> None:
    driver.find_element("id", "room").send_keys(room)


def cover_says(title: str, driver: Any) -> bool:
    return text(driver, "cover-title") == title

"""A browser alone, by a room's link, against `streamgc call`: VP8 both ways."""

import asyncio
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgc.call.rendezvous import make_room
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.sources import Size, load_clip, packaged_clip
from tests.browser import browser, chromium, likeness, make_camera, pixels, screenshot
from tests.test_browser_call import changes_of, click, do, phase, until

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


async def terminal_call(server: str, room: str, record: Path) -> asyncio.subprocess.Process:
    """`streamgc call` in the terminal, sending the packaged clip and recording what comes."""
    arguments = [
        "call",
        room,
        "--server",
        server,
        "--headless",
        "--record",
        str(record),
        "--threads",
        "1",
        "--no-framing",
    ]
    arguments += ["--input", str(packaged_clip()), "--statistics", str(record.with_suffix(".jsonl"))]
    command = (sys.executable, "-c", "import sys; from streamgc.cli import main; sys.exit(main())", *arguments)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)


def middle(picture: Any) -> Any:
    """(H, W, 3) as the 16 × 16 of its centred square."""
    height, width = picture.shape[:2]
    side = min(height, width)
    square = picture[(height - side) // 2 :, (width - side) // 2 :][:side, :side]
    step = side / 16
    edges = [round(number * step) for number in range(17)]
    rows = np.stack([square[a:b].mean(0) for a, b in pairwise(edges)])
    return np.stack([rows[:, a:b].mean(1) for a, b in pairwise(edges)], 1)


@pytest.mark.parametrize("browser_first", [False, True])
async def test_a_browser_alone_calls_over_vp8(tmp_path: Path, browser_first: bool) -> None:
    chromium()
    clip = [middle(picture) for picture in load_clip(packaged_clip(), Size(256, 256), 5.0)]
    record = tmp_path / "received.mkv"
    async with local_server(SignalingOptions(port=0)) as server:
        room = await make_room(server)
        with browser(tmp_path, await do(make_camera, tmp_path / "camera.y4m")) as driver:
            await do(driver.get, f"{server}/{room}")
            await do(screenshot, driver, "guest-link")
            process = None if browser_first else await terminal_call(server, room, record)
            if not browser_first:
                await asyncio.sleep(4)  # the terminal is in the room first: the browser offers
            await do(click, driver, "#join")
            if browser_first:
                await until(driver, lambda d: phase(d) == "waiting", "the room")
                await asyncio.sleep(1)
                process = await terminal_call(server, room, record)
            assert process is not None
            await until(driver, lambda d: phase(d) == "connected", "the call")
            await changes_of(driver, "remote", 8)
            await until(driver, lambda d: like(pixels(d, "remote"), clip) > 0.8, "the clip")
            await asyncio.sleep(2)
            await do(screenshot, driver, f"guest-call-{'first' if browser_first else 'second'}")
            await do(click, driver, "#hangup")
            await until(driver, lambda d: phase(d) == "ended", "that we have left")
            output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode()
    assert b"no code to compare" in output
    assert '"codec":"VP8"' in record.with_suffix(".jsonl").read_text().replace(" ", "")
    received = [middle(picture) for picture in load_clip(record, Size(256, 256), 5.0)]
    assert len(received) >= 5
    assert max(like(picture, clip) for picture in received) > 0.8  # the browser's camera shows the same clip


def like(picture: Any, clip: list[Any]) -> float:
    return max(likeness(picture, one) for one in clip)


async def test_a_second_call_begins_with_camera_and_microphone_as_the_first_ended(tmp_path: Path) -> None:
    chromium()
    enabled = """return Object.fromEntries(document.getElementById("local").srcObject.getTracks()
                 .map((track) => [track.kind, track.enabled]));"""
    async with local_server(SignalingOptions(port=0)) as server:
        room = await make_room(server)
        with browser(tmp_path, await do(make_camera, tmp_path / "camera.y4m")) as driver:
            await do(driver.get, f"{server}/{room}")
            await do(click, driver, "#join")
            await until(driver, lambda d: phase(d) == "waiting", "the room")
            assert await do(driver.execute_script, enabled) == {"video": True, "audio": True}
            await do(click, driver, "#camera")
            assert await do(driver.execute_script, enabled) == {"video": False, "audio": True}
            await do(click, driver, "#hangup")
            await until(driver, lambda d: phase(d) == "ended", "that we have left")
            await do(click, driver, "#join")
            await until(driver, lambda d: phase(d) == "waiting", "the room once more")
            assert await do(driver.execute_script, enabled) == {"video": False, "audio": True}
            assert (
                await do(driver.execute_script, 'return document.getElementById("camera").textContent') == "Camera off"
            )
            await do(click, driver, "#camera")
            assert await do(driver.execute_script, enabled) == {"video": True, "audio": True}

"""Cameras and screens of this machine; a virtual screen by Xvfb."""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from streamgc.call import devices
from streamgc.call.devices import is_screen, list_devices
from streamgc.call.rendezvous import make_room
from streamgc.call.serve import SignalingOptions, local_server
from streamgc.call.session import Hooks, Session, SessionOptions
from streamgc.call.sources import Camera
from streamgc.call.virtual_camera import VirtualCamera
from streamgc.cli import app
from streamgc.errors import InputError
from streamgc.rtc.connection import ConnectionOptions
from streamgc.rtc.pictures import Picture
from tests.rtc_fakes import FakeCodec


def wait_for(path: Path) -> None:
    end = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@asynccontextmanager
async def white_screen(number: int = 97) -> AsyncIterator[str]:
    """A display of 1600 × 900 white pixels."""
    program = shutil.which("Xvfb")
    if program is None or "x11grab" not in av.formats_available:
        pytest.skip("needs an X server and PyAV with x11grab: apt-get install -y xvfb")
    arguments = (f":{number}", "-screen", "0", "1600x900x24", "-wr", "-nolisten", "tcp")
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=quiet, stderr=quiet)
    try:
        await asyncio.to_thread(wait_for, Path(f"/tmp/.X11-unix/X{number}"))
        yield f":{number}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="x11grab")
async def test_a_screen_goes_whole_over_vp8(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Picture] = []
    arrived = asyncio.Event()

    def show(picture: Picture, number: int | None, at_ns: int) -> None:
        shown.append(picture)
        if picture.mean() > 200:
            arrived.set()

    async with white_screen() as display, local_server(SignalingOptions(port=0)) as server:
        monkeypatch.setenv("DISPLAY", display)
        assert [device.name for device in list_devices()][-1] == "screen"
        room = await make_room(server)
        options = SessionOptions(server, room, ConnectionOptions(model="", sgc=False))
        alice = Session(options, FakeCodec())
        bob = Session(SessionOptions(server, room, ConnectionOptions(model="")), FakeCodec(), Hooks(shown=show))
        async with asyncio.TaskGroup() as group, Camera("screen", None, 10.0) as screen:
            group.create_task(alice.run())
            group.create_task(bob.run())
            sending = group.create_task(alice.send_all(screen.pictures()))
            await asyncio.wait_for(arrived.wait(), 30)
            assert alice.connection is not None
            assert alice.connection.codec == "VP8"
            sending.cancel()
            alice.stop()
    assert shown[-1].shape == (720, 1280, 3)
    assert shown[-1].mean() > 200


def test_what_is_a_screen() -> None:
    assert is_screen("screen")
    assert is_screen("screen::1.0+10,20")
    assert not is_screen("screenshot.mp4")


async def test_no_screen_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("other systems always have one")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(InputError, match="DISPLAY is not set"):
        async with Camera("screen", None, 10.0):
            pass
    with pytest.raises(InputError, match="cannot be grabbed"):
        async with Camera("screen::96", None, 10.0):
            pass


def test_the_list_of_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [devices.Device("/dev/video0", "A camera"), devices.Device("screen", "the screen :0 (x11grab)")]
    monkeypatch.setattr(devices, "list_devices", lambda: found)
    result = CliRunner().invoke(app, ["call", "--list-devices"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["/dev/video0  A camera", "screen       the screen :0 (x11grab)"]


def test_no_virtual_camera_is_said_in_one_line() -> None:
    if any(Path("/dev").glob("video*")):
        pytest.skip("this machine may have one")
    with pytest.raises(InputError, match=r"virtual.?camera") as raised:
        VirtualCamera(64, 64, 15.0)
    assert "\n" not in str(raised.value)


class Loopback:
    """Stands for pyvirtualcam.Camera, which needs a module of the kernel."""

    def __init__(self, width: int, height: int, fps: float, device: str | None) -> None:
        self.size, self.sent, self.closed = (height, width), [], False  # type: ignore[var-annotated]

    def send(self, picture: Picture) -> None:
        assert picture.shape == (*self.size, 3)
        self.sent.append(picture)

    def close(self) -> None:
        self.closed = True


def test_pictures_of_any_size_fit_the_virtual_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    pyvirtualcam = pytest.importorskip("pyvirtualcam", reason="pip install 'streamgc[virtualcam]'")
    monkeypatch.setattr(pyvirtualcam, "Camera", Loopback)
    camera = VirtualCamera(64, 48, 15.0)
    camera.show(np.full((48, 64, 3), 90, np.uint8))
    camera.show(np.full((96, 128, 3), 200, np.uint8))
    assert [int(one.mean()) for one in camera._camera.sent] == [90, 200]
    camera.close()
    assert camera._camera.closed

"""A real browser for the tests: Debian's chromium, driven by selenium, with a camera made of the packaged clip."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamgc.call.sources import packaged_clip

ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
CAMERA_SIZE = (320, 240)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--window-size=1280,900",
    "--hide-scrollbars",
)
_PIXELS = """
const video = document.getElementById(arguments[0]), canvas = document.createElement("canvas");
canvas.width = canvas.height = 16;
const pen = canvas.getContext("2d");
const side = Math.min(video.videoWidth, video.videoHeight);
if (!side) return null;
pen.drawImage(video, (video.videoWidth - side) / 2, (video.videoHeight - side) / 2, side, side, 0, 0, 16, 16);
return Array.from(pen.getImageData(0, 0, 16, 16).data);
"""


def chromium() -> tuple[str, str]:
    """(chromium, chromedriver); skips the test when they or selenium are missing."""
    pytest.importorskip("selenium", reason="browser tests need selenium: pip install selenium")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.skip("browser tests need a chromium: apt-get install -y chromium chromium-driver")
    return found, driver


def make_camera(path: Path, frames: int = 90) -> Path:
    """A y4m file of the packaged clip, to and fro, for `--use-file-for-fake-video-capture`."""
    width, height = CAMERA_SIZE
    planes: list[bytes] = []
    with av.open(str(packaged_clip())) as container:
        for frame in container.decode(video=0):
            plain = frame.reformat(width, height, format="yuv420p", interpolation="BICUBIC")
            planes.append(plain.to_ndarray().tobytes())
            if len(planes) >= frames:
                break
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F15:1 Ip A1:1 C420jpeg\n".encode())
        for data in planes + planes[-2:0:-1]:
            file.write(b"FRAME\n" + data)
    return path


@contextmanager
def browser(folder: Path, camera: Path | None, allowed: bool = True) -> Iterator[Any]:
    """A selenium driver; `camera` None = a machine without one, `allowed` False = the user says no."""
    from selenium import webdriver

    binary, driver_path = chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in _FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    if allowed:
        options.add_argument("--use-fake-ui-for-media-stream")
    else:
        settings = "profile.default_content_setting_values.media_stream"
        media = {f"{settings}_camera": 2, f"{settings}_mic": 2}
        options.add_experimental_option("prefs", media)
    if camera is not None:
        options.add_argument("--use-fake-device-for-media-stream")
        options.add_argument(f"--use-file-for-fake-video-capture={camera}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    driver.set_script_timeout(30)
    try:
        yield driver
    finally:
        driver.quit()


def pixels(driver: Any, video: str) -> "np.ndarray[Any, np.dtype[np.uint8]] | None":
    """The centred square of what a video element shows, (16, 16, 3); None while it shows nothing."""
    values = driver.execute_script(_PIXELS, video)
    return None if values is None else np.array(values, np.uint8).reshape(16, 16, 4)[..., :3]


def likeness(one: Any, other: Any) -> float:
    """Correlation of two pictures' brightness, -1..1."""
    return float(np.corrcoef(one.mean(2).ravel(), other.mean(2).ravel())[0, 1])


def screenshot(driver: Any, name: str) -> None:
    """Keep what the window shows in `artefacts/`."""
    ARTEFACTS.mkdir(exist_ok=True)
    driver.save_screenshot(str(ARTEFACTS / f"{name}.png"))

